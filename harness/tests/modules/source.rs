//! The modules of a crate, and what each of them names by `use` and by path. Tests inside the sources are left out: they may
//! look at everything.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::graph::{Graph, Module};

/// One parsed crate.
#[derive(Debug, Default)]
pub struct Crate {
    /// Every path that each module names, from the crate's root.
    named: BTreeMap<Module, Vec<Module>>,
    /// What a name that a module publishes for another stands for.
    published: BTreeMap<(Module, String), Module>,
    /// Every path as it is written, with its module: `tokio::spawn`, `pub use a::*`.
    written: Vec<(Module, String)>,
}

impl Crate {
    /// Parses every file under `source` that is part of the crate outside its tests.
    pub fn parse(source: &Path) -> Self {
        let mut parsed = Self::default();
        for root in ["lib.rs", "main.rs"] {
            if source.join(root).exists() {
                parsed.file(&source.join(root), source, &Module::new());
            }
        }
        parsed
    }

    /// Which module names which.
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        for (module, paths) in &self.named {
            for path in paths {
                graph.add(module, &self.module_of(path));
            }
        }
        graph
    }

    /// Every path as it is written outside tests, with its module: `tokio::spawn`, `pub use a::*`.
    pub fn written(&self) -> &[(Module, String)] {
        &self.written
    }

    fn file(&mut self, file: &Path, children: &Path, module: &Module) {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.items(&parsed.items, children, module);
    }

    fn items(&mut self, items: &[Item], children: &Path, module: &Module) {
        self.named.entry(module.clone()).or_default();
        for item in items {
            match item {
                Item::Mod(inner) => self.inner(inner, children, module),
                other if is_test(attributes(other)) => {}
                other => {
                    let mut names =
                        Names { module, paths: Vec::new(), published: Vec::new(), written: Vec::new() };
                    names.visit_item(other);
                    self.named.entry(module.clone()).or_default().extend(names.paths);
                    self.written.extend(names.written.into_iter().map(|path| (module.clone(), path)));
                    for (name, path) in names.published {
                        self.published.insert((module.clone(), name), path);
                    }
                }
            }
        }
    }

    fn inner(&mut self, inner: &ItemMod, children: &Path, module: &Module) {
        if is_test(&inner.attrs) {
            return;
        }
        let name = inner.ident.to_string();
        let (path, folder) =
            ([module.as_slice(), std::slice::from_ref(&name)].concat(), children.join(&name));
        if let Some((_, items)) = &inner.content {
            return self.items(items, &folder, &path);
        }
        let files = [children.join(format!("{name}.rs")), folder.join("mod.rs")];
        let file = files.iter().find(|file| file.exists());
        let file = file.unwrap_or_else(|| panic!("no file of module {}", path.join("::")));
        self.file(file, &folder, &path);
    }

    /// The module that a path leads to, through what modules publish for each other.
    fn module_of(&self, path: &Module) -> Module {
        let mut path = path.clone();
        // A name published through a name: more than eight of them would be a circle of their own.
        for _ in 0..8 {
            let depth =
                (0..=path.len()).rev().find(|&depth| self.named.contains_key(&path[..depth])).unwrap_or(0);
            let (module, rest) = path.split_at(depth);
            let Some(target) =
                rest.first().and_then(|name| self.published.get(&(module.to_vec(), name.clone())))
            else {
                return module.to_vec();
            };
            path = [target.as_slice(), &rest[1..]].concat();
        }
        path
    }
}

/// Collects the paths that an item names, as paths from the crate's root.
struct Names<'a> {
    module: &'a Module,
    paths: Vec<Module>,
    published: Vec<(String, Module)>,
    written: Vec<String>,
}

impl Names<'_> {
    /// `crate::a`, `self::a` and `super::a` from the root; a bare name is a child of this module, or another crate's.
    fn absolute(&self, path: &[String]) -> Module {
        let mut base = self.module.clone();
        for (at, segment) in path.iter().enumerate() {
            match segment.as_str() {
                "crate" => base.clear(),
                "self" => {}
                "super" => drop(base.pop()),
                _ => return [base.as_slice(), &path[at..]].concat(),
            }
        }
        base
    }

    fn tree(&mut self, tree: &UseTree, before: &[String], public: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident), public),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before, public)),
            UseTree::Name(name) => self.leaf(&with(&name.ident), &name.ident, public),
            UseTree::Rename(rename) => self.leaf(&with(&rename.ident), &rename.rename, public),
            UseTree::Glob(_) => {
                if public {
                    self.written.push(format!("pub use {}::*", before.join("::")));
                }
                self.paths.push(self.absolute(before));
            }
        }
    }

    fn leaf(&mut self, path: &[String], name: &syn::Ident, public: bool) {
        self.written.push(path.join("::"));
        let path = self.absolute(path);
        if public {
            self.published.push((name.to_string(), path));
        } else {
            self.paths.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.written.push(segments.join("::"));
        if matches!(segments.first().map(String::as_str), Some("crate" | "super")) {
            self.paths.push(self.absolute(&segments));
        }
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    }
}
