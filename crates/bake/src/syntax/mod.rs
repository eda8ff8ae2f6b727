//! Texts become one tree, whichever of the two syntaxes they are in.

mod body;
mod hcl;
mod json;
mod tree;

pub(crate) use body::{Attribute, Block, Body};
pub(crate) use hcl::parse_hcl;
pub(crate) use json::parse_json;
pub(crate) use tree::{Binary, Call, Expr, ForExpr, Kind, Step, Unary};
