//! What the OpenAPI document says of one operation; its handler's argument and response types add to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{DATABASE_UNAVAILABLE, INTERNAL, PROBLEMS, Problem};

/// An operation as it is put together.
#[derive(Default)]
pub(crate) struct Operation {
    parameters: Vec<Value>,
    body: Option<Value>,
    responses: BTreeMap<u16, Value>,
    problems: Vec<Problem>,
    secured: bool,
    needs_caller: bool,
    access: Value,
    /// By their names.
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Operation {
    /// A parameter in `place` (`path`, `query` or `header`).
    pub(crate) fn parameter(&mut self, place: &str, name: &str, schema: Value, description: &str) {
        let mut parameter = json!({ "name": name, "in": place, "schema": schema });
        if place == "path" {
            parameter["required"] = json!(true);
        }
        if !description.is_empty() {
            parameter["description"] = json!(description);
        }
        self.parameters.push(parameter);
    }

    /// A header that must be there.
    pub(crate) fn required_header(&mut self, name: &str, schema: Value, description: &str) {
        self.parameter("header", name, schema, description);
        if let Some(parameter) = self.parameters.last_mut() {
            parameter["required"] = json!(true);
        }
    }

    /// The body, by its content types.
    pub(crate) fn body(&mut self, required: bool, content: Value) {
        self.body = Some(json!({ "required": required, "content": content }));
    }

    /// A response; `content` by its content types, null where there is none.
    pub(crate) fn response(&mut self, status: u16, description: &str, content: Value) {
        let mut response = json!({ "description": description });
        if !content.is_null() {
            response["content"] = content;
        }
        self.responses.insert(status, response);
    }

    /// JSON content of a type, which becomes a component of the document.
    pub(crate) fn json<T: ToSchema>(&mut self) -> Value {
        json!({ "application/json": { "schema": self.schema::<T>() } })
    }

    /// A reference to a type's schema.
    pub(crate) fn schema<T: ToSchema>(&mut self) -> Value {
        let name = T::name();
        self.schemas.push((name.clone().into_owned(), <T as PartialSchema>::schema()));
        T::schemas(&mut self.schemas);
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// Problems that it may respond with.
    pub(crate) fn problems(&mut self, problems: &[Problem]) {
        self.problems.extend_from_slice(problems);
    }

    /// A token is needed.
    pub(crate) fn secured(&mut self) {
        self.secured = true;
    }

    /// An argument of its handler is who asks.
    pub(crate) fn needs_caller(&mut self) {
        self.needs_caller = true;
    }

    /// Whether its handler can be called only with a token.
    #[cfg(test)]
    pub(crate) fn is_inconsistent(&self) -> bool {
        self.needs_caller && !self.secured
    }

    /// Who may call it, as `x-access` of the document names them.
    pub(crate) fn access(&mut self, names: Value) {
        self.access = names;
    }

    /// Whether this response is described: everything may meet a fault of ours.
    pub(crate) fn allows(&self, problem: Problem) -> bool {
        [INTERNAL, DATABASE_UNAVAILABLE].contains(&problem) || self.problems.contains(&problem)
    }

    /// Adds the schemas that it refers to.
    pub(crate) fn components(&self, schemas: &mut BTreeMap<String, Value>) {
        for (name, schema) in &self.schemas {
            schemas.insert(name.clone(), json!(schema));
        }
    }

    /// As the document has it.
    pub(crate) fn document(&self, summary: &str, description: &str) -> Value {
        let mut responses = json!({});
        for (status, response) in &self.responses {
            responses[status.to_string()] = response.clone();
        }
        for problem in PROBLEMS.iter().filter(|problem| self.allows(**problem)) {
            refusal(&mut responses[problem.status.to_string()], *problem);
        }
        let mut operation = json!({ "summary": summary, "x-access": self.access, "responses": responses });
        if !description.is_empty() {
            operation["description"] = json!(description);
        }
        if !self.parameters.is_empty() {
            operation["parameters"] = json!(self.parameters);
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        if !self.secured {
            operation["security"] = json!([]);
        }
        operation
    }
}

/// Adds a problem to the response of its status.
fn refusal(response: &mut Value, problem: Problem) {
    if response.is_null() {
        let content =
            json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
        *response = json!({ "description": "", "content": content });
    }
    let before = response["description"].as_str().filter(|text| !text.is_empty());
    let line = format!("`{}`: {}", problem.code, problem.detail);
    response["description"] = json!(before.map_or(line.clone(), |text| format!("{text}; {line}")));
}

/// The schema of a text of a closed set.
pub(crate) fn one_of(values: &[&str]) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values.iter().copied())).build().into()
}

/// The schema of a text of a closed set, or null.
pub(crate) fn one_of_or_null(values: &[&str]) -> Schema {
    let values = values.iter().map(|value| json!(value)).chain([Value::Null]);
    let types = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(types).enum_values(Some(values)).build().into()
}
