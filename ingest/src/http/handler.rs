//! Rows of the table of routes. A handler is an async function whose arguments are read from the request in their order and whose result
//! is the response; both describe themselves to the OpenAPI document.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use warp::http::Method;
use warp::reply::Response;

use super::operation::Operation;
use super::problem::{ApiError, MAINTENANCE, Problem, SCOPE_MISSING};
use super::reply::Reply;
use super::request::{Extract, Provide, Request};
use crate::auth::access::Access;
use crate::auth::admission::{Admission, Caller};

type Responding = BoxFuture<'static, Result<Response, ApiError>>;
type Call<S> = Arc<dyn Fn(S, Request) -> Responding + Send + Sync>;

/// A row: method, path, handler, and what the OpenAPI document says.
#[derive(Clone)]
pub(crate) struct Route<S> {
    pub(crate) method: Method,
    /// Who may call it.
    pub(crate) access: Access,
    /// The template, as metrics and the OpenAPI document name it: `/v1/uploads/{id}`.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    pub(crate) describe: fn(&mut Operation),
    pub(crate) refusals: Vec<&'static [Problem]>,
    /// Whether metrics count its requests.
    pub(crate) counted: bool,
    /// Whether it is refused during maintenance.
    pub(crate) paused: bool,
    pub(crate) call: Call<S>,
}

/// `GET path`; HEAD is served by the same handler.
pub(crate) fn get<S: Send + Sync + 'static, A: 'static>(
    path: &'static str,
    access: Access,
    summary: &'static str,
    handler: impl Handler<S, A>,
) -> Route<S> {
    route(Method::GET, path, access, summary, handler)
}

/// `POST path`.
pub(crate) fn post<S: Send + Sync + 'static, A: 'static>(
    path: &'static str,
    access: Access,
    summary: &'static str,
    handler: impl Handler<S, A>,
) -> Route<S> {
    route(Method::POST, path, access, summary, handler)
}

/// `PUT path`.
pub(crate) fn put<S: Send + Sync + 'static, A: 'static>(
    path: &'static str,
    access: Access,
    summary: &'static str,
    handler: impl Handler<S, A>,
) -> Route<S> {
    route(Method::PUT, path, access, summary, handler)
}

/// `PATCH path`.
pub(crate) fn patch<S: Send + Sync + 'static, A: 'static>(
    path: &'static str,
    access: Access,
    summary: &'static str,
    handler: impl Handler<S, A>,
) -> Route<S> {
    route(Method::PATCH, path, access, summary, handler)
}

/// `DELETE path`.
pub(crate) fn delete<S: Send + Sync + 'static, A: 'static>(
    path: &'static str,
    access: Access,
    summary: &'static str,
    handler: impl Handler<S, A>,
) -> Route<S> {
    route(Method::DELETE, path, access, summary, handler)
}

fn route<S: Send + Sync + 'static, A: 'static, H: Handler<S, A>>(
    method: Method,
    path: &'static str,
    access: Access,
    summary: &'static str,
    handler: H,
) -> Route<S> {
    Route {
        paused: method != Method::GET,
        method,
        access,
        path,
        summary,
        description: "",
        describe: H::describe,
        refusals: Vec::new(),
        counted: true,
        call: Arc::new(move |dependencies: S, request: Request| handler.clone().call(dependencies, request)),
    }
}

impl<S> Route<S> {
    /// More than the summary says.
    pub(crate) fn description(mut self, text: &'static str) -> Self {
        self.description = text;
        self
    }

    /// Further problems that the handler itself responds with, beside those of its arguments.
    pub(crate) fn refuses(mut self, problems: &'static [Problem]) -> Self {
        self.refusals.push(problems);
        self
    }

    /// Metrics leave it out: probes come every few seconds and would drown what people ask for.
    pub(crate) fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Maintenance does not pause it, although it changes something.
    pub(crate) fn in_maintenance(mut self) -> Self {
        self.paused = false;
        self
    }

    /// The operation's description.
    pub(crate) fn operation(&self) -> Operation {
        let mut operation = Operation::default();
        self.access.describe(&mut operation);
        if self.paused {
            operation.problems(&[MAINTENANCE]);
        }
        (self.describe)(&mut operation);
        self.refusals.iter().for_each(|problems| operation.problems(problems));
        operation
    }
}

impl<S: Provide<Arc<Admission>> + Sync> Route<S> {
    /// Lets a request pass, with its caller, or refuses it.
    pub(crate) async fn admit(&self, dependencies: &S, request: &mut Request) -> Result<(), ApiError> {
        self.access.admit(dependencies, request).await?;
        let caller = request.extensions.get::<Caller>();
        if caller.is_some_and(|caller| !caller.scopes.allow(&self.method)) {
            return Err(SCOPE_MISSING.error());
        }
        if self.paused { dependencies.provide().admit_write(caller) } else { Ok(()) }
    }
}

/// An async function of up to six [`Extract`]s to a [`Reply`].
pub(crate) trait Handler<S, A>: Clone + Send + Sync + 'static {
    fn call(self, dependencies: S, request: Request) -> Responding;
    fn describe(operation: &mut Operation);
}

macro_rules! handlers {
    ($($argument:ident)*) => {
        impl<S, F, R, W, $($argument),*> Handler<S, ($($argument,)*)> for F
        where
            S: Send + Sync + 'static,
            F: Fn($($argument),*) -> W + Clone + Send + Sync + 'static,
            W: Future<Output = Result<R, ApiError>> + Send + 'static,
            R: Reply + 'static,
            $($argument: Extract<S> + 'static,)*
        {
            #[allow(non_snake_case, unused_mut, unused_variables, reason = "a function may have no argument")]
            fn call(self, dependencies: S, mut request: Request) -> Responding {
                async move {
                    $(let $argument = $argument::extract(&dependencies, &mut request).await?;)*
                    self($($argument),*).await?.into_response()
                }
                .boxed()
            }

            fn describe(operation: &mut Operation) {
                $($argument::describe(operation);)*
                R::describe(operation);
            }
        }
    };
}
handlers!();
handlers!(A1);
handlers!(A1 A2);
handlers!(A1 A2 A3);
handlers!(A1 A2 A3 A4);
handlers!(A1 A2 A3 A4 A5);
handlers!(A1 A2 A3 A4 A5 A6);
