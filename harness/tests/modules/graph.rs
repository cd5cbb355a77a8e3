//! Which module needs which, and which of them need each other.

use std::collections::{BTreeMap, BTreeSet};

/// A module's path inside its crate; empty for the crate's root.
pub type Module = Vec<String>;

/// Directed: from a module to those that it names.
#[derive(Debug, Default)]
pub struct Graph(BTreeMap<Module, BTreeSet<Module>>);

impl Graph {
    /// `from` names something of `to`. A module and what lies inside it are one thing seen from outside: no edge.
    pub fn add(&mut self, from: &Module, to: &Module) {
        if !from.starts_with(to) && !to.starts_with(from) {
            self.0.entry(from.clone()).or_default().insert(to.clone());
        }
    }

    /// Every module that can be reached from itself, as `module -> the neighbour that leads back`.
    pub fn in_circles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (module, next) in &self.0 {
            for neighbour in next {
                if self.reaches(neighbour, module) {
                    found.push(format!("{} -> {}", module.join("::"), neighbour.join("::")));
                }
            }
        }
        found
    }

    fn reaches(&self, from: &Module, to: &Module) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            if module == to {
                return true;
            }
            if seen.insert(module) {
                open.extend(self.0.get(module).into_iter().flatten());
            }
        }
        false
    }
}
