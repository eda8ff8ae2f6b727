//! Bodies: attributes and blocks, by name and in order.

use std::rc::Rc;

use super::Expr;
use crate::error::Span;

/// The inside of a file or a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) blocks: Vec<Rc<Block>>,
}

/// `name = value`.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) value: Rc<Expr>,
    pub(crate) name_span: Span,
}

/// `kind "label" { … }`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) labels: Vec<String>,
    pub(crate) body: Body,
    /// The header.
    pub(crate) span: Span,
}

impl Body {
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}
