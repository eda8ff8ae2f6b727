//! `RUN --device=…`.
//!
//! The reference has it in its `labs` channel only; here one frontend is both, so it is known everywhere.

use crate::problem::Problem;
use crate::suggest::Case;
use crate::text::{csv_fields, parse_bool};

const KEYS: [&str; 2] = ["name", "required"];

/// A device that a step asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSpec {
    /// A device, a kind of devices, or a class: `vendor.com/gpu=0`, `vendor.com/gpu`, `gpus`.
    pub name: String,
    /// The step cannot do without.
    pub required: bool,
}

impl DeviceSpec {
    /// Reads `NAME[,required]`, in which the name may be written `name=NAME`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let fields = csv_fields(text).map_err(|error| {
            Problem::new(format!("failed to parse csv devices: {error}")).token(text.to_owned())
        })?;
        let mut device = Self::default();
        for field in &fields {
            device.set(field)?;
        }
        match device.name.is_empty() {
            true => Err(Problem::new("a device has no name")
                .token(text.to_owned())
                .hint("write `--device=vendor.com/class=name`, as CDI names it")),
            false => Ok(device),
        }
    }

    fn set(&mut self, field: &str) -> Result<(), Problem> {
        let problem = |message: String| Problem::new(message).token(field.to_owned());
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => self.required = true,
            ("required", Some(value)) => {
                let invalid = || problem(format!("invalid value for {key}: {value}"));
                self.required = parse_bool(value).ok_or_else(invalid)?;
            }
            ("name", Some(_)) if !self.name.is_empty() => {
                return Err(problem(format!("device name already set to {}", self.name)));
            }
            ("name", Some(value)) => self.name = value.to_owned(),
            // The name of a device has a `=` in it itself.
            _ if self.name.is_empty() => self.name = field.to_owned(),
            (_, None) => {
                return Err(problem(format!("invalid field '{field}' must be a key=value pair")));
            }
            _ => {
                let unexpected = problem(format!("unexpected key '{key}' in '{field}'"));
                return Err(unexpected
                    .suggest(&key, KEYS, Case::Sensitive)
                    .hint(format!("known options: {}", KEYS.join(", "))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        for (text, name, required) in [
            ("vendor.com/gpu=0", "vendor.com/gpu=0", false),
            ("vendor.com/gpu,required", "vendor.com/gpu", true),
            ("name=gpus,required=false", "gpus", false),
            ("required,name=vendor.com/gpu=*", "vendor.com/gpu=*", true),
        ] {
            let expected = DeviceSpec { name: name.to_owned(), required };
            assert_eq!(DeviceSpec::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("required", "a device has no name"),
            ("v.com/g=0,name=x", "device name already set to v.com/g=0"),
            ("v.com/g=0,required=maybe", "invalid value for required: maybe"),
            ("v.com/g=0,optional", "invalid field 'optional' must be a key=value pair"),
            ("v.com/g=0,requird=true", "unexpected key 'requird' in 'requird=true' (did you mean required?)"),
        ] {
            assert_eq!(DeviceSpec::parse(text).unwrap_err().message(), message, "{text}");
        }
    }
}
