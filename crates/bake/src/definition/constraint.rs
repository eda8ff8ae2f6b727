//! Type constraints: `list(string)`, `object({ name = string })`.

use crate::error::{Problem, Result};
use crate::syntax::{Expr, Kind, parse_hcl};
use crate::value::{Type, Value};

/// Reads a type; `any` accepts every value.
pub(crate) fn type_constraint(expr: &Expr) -> Result<Type> {
    const NAMES: [&str; 9] = ["string", "number", "bool", "any", "list", "set", "map", "tuple", "object"];
    let invalid = |name: &str| {
        Problem::new(format!("`{name}` is not a valid type")).meant(name, NAMES).at(expr.span).into()
    };
    match &expr.kind {
        Kind::Variable(name) => match name.as_str() {
            "string" => Ok(Type::String),
            "number" => Ok(Type::Number),
            "bool" => Ok(Type::Bool),
            "any" => Ok(Type::Any),
            "list" | "set" | "map" | "tuple" | "object" => {
                let argument = match name.as_str() {
                    "tuple" => "[string, number]",
                    "object" => "{ name = string }",
                    _ => "string",
                };
                Err(Problem::new(format!("the type `{name}` needs the type of its elements"))
                    .hint(format!("write `{name}({argument})`"))
                    .at(expr.span)
                    .into())
            }
            other => Err(invalid(other)),
        },
        // In JSON a type is a string that reads as HCL.
        Kind::Literal(Value::String(text)) => {
            let body = parse_hcl(expr.span.file, &format!("type = {text}")).map_err(|_| {
                crate::error::Problems::from(Problem::new(format!("`{text}` is not a valid type")).at(expr.span))
            })?;
            match body.attribute("type") {
                Some(attribute) if attribute.value.literal_text().is_none() => {
                    type_constraint(&attribute.value).map_err(|_| invalid(text))
                }
                _ => Err(invalid(text)),
            }
        }
        Kind::Call(call) => {
            let [argument] = call.arguments.as_slice() else {
                return Err(Problem::new(format!("the type `{}` takes one argument", call.name))
                    .at(expr.span)
                    .into());
            };
            match (call.name.as_str(), &argument.kind) {
                ("list", _) => Ok(Type::List(Box::new(type_constraint(argument)?))),
                ("set", _) => Ok(Type::Set(Box::new(type_constraint(argument)?))),
                ("map", _) => Ok(Type::Map(Box::new(type_constraint(argument)?))),
                ("tuple", Kind::Tuple(list)) => {
                    list.iter().map(type_constraint).collect::<Result<_>>().map(Type::Tuple)
                }
                ("object", Kind::Object(members)) => object(members),
                ("tuple", _) => Err(Problem::new("the type `tuple` takes a list of types")
                    .hint("write `tuple([string, number])`")
                    .at(argument.span)
                    .into()),
                ("object", _) => Err(Problem::new("the type `object` takes the types of its attributes")
                    .hint("write `object({ name = string })`")
                    .at(argument.span)
                    .into()),
                (other, _) => Err(invalid(other)),
            }
        }
        _ => Err(Problem::new("this is not a valid type")
            .hint("types are `string`, `number`, `bool`, `any`, `list(…)`, `set(…)`, `map(…)`, `tuple([…])` and `object({…})`")
            .at(expr.span)
            .into()),
    }
}

fn object(members: &[(Expr, Expr)]) -> Result<Type> {
    let member = |(key, kind): &(Expr, Expr)| {
        let name = key.literal_text().map(str::to_owned);
        let name = name.ok_or_else(|| Problem::new("the name of an attribute is required").at(key.span))?;
        let (optional, kind) = match &kind.kind {
            Kind::Call(call) if call.name == "optional" && call.arguments.len() == 1 => {
                (true, &call.arguments[0])
            }
            _ => (false, kind),
        };
        Ok((name, crate::value::Attribute { kind: type_constraint(kind)?, optional }))
    };
    members.iter().map(member).collect::<Result<_>>().map(Type::Object)
}
