//! `format` and `formatlist`: Go's verbs for values.

use bigdecimal::{BigDecimal, RoundingMode, Signed as _, ToPrimitive as _};

use super::{Function, function, text};
use crate::error::{Problem, Result, fail};
use crate::value::{Type, Value, convert, json, number_text};

pub(super) const FUNCTIONS: &[Function] = &[
    function("format", "sV*", |a| format(text(&a[0]), &a[1..]).map(Value::String)),
    function("formatlist", "sV*", format_list),
];

/// The largest width and precision.
const MOST: usize = 4096;

fn format_list(a: &[Value]) -> Result<Value> {
    let arguments = &a[1..];
    let mut length = None;
    for list in arguments.iter().filter_map(Value::elements) {
        if *length.get_or_insert(list.len()) != list.len() {
            return fail("the lists given to `formatlist` have different lengths");
        }
    }
    let list = (0..length.unwrap_or(1)).map(|at| {
        let row: Vec<Value> = arguments
            .iter()
            .map(|value| value.elements().and_then(|list| list.get(at)).unwrap_or(value).clone())
            .collect();
        format(text(&a[0]), &row).map(Value::String)
    });
    list.collect::<Result<_>>().map(Value::List)
}

/// One `%…`.
#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
    argument: Option<usize>,
    letter: char,
}

fn format(layout: &str, arguments: &[Value]) -> Result<String> {
    let mut out = String::new();
    let mut rest = layout;
    let (mut next, mut highest, mut explicit) = (0, 0, false);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (verb, after) = parse_verb(after)?;
        rest = after;
        let at = match verb.argument {
            Some(at) => {
                explicit = true;
                at
            }
            None => next,
        };
        next = at + 1;
        highest = highest.max(next);
        let value = arguments.get(at).ok_or_else(|| {
            Problem::new(format!(
                "not enough arguments for `%{}`: need {}, have {}",
                verb.letter,
                at + 1,
                arguments.len()
            ))
        })?;
        out.push_str(&pad(&verb, formatted(&verb, value)?));
    }
    out.push_str(rest);
    if highest < arguments.len() && !explicit {
        return fail(format!(
            "too many arguments: the format uses {highest}, and {} are given",
            arguments.len()
        ));
    }
    Ok(out)
}

fn parse_verb(text: &str) -> Result<(Verb, &str)> {
    let mut verb = Verb::default();
    let mut rest = text;
    loop {
        let Some(c) = rest.chars().next() else { return fail("the format ends inside a verb") };
        match c {
            '-' => verb.minus = true,
            '+' => verb.plus = true,
            ' ' => verb.space = true,
            '0' => verb.zero = true,
            '#' => verb.sharp = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let number = |rest: &mut &str| -> Result<Option<usize>> {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        *rest = after;
        match digits.parse::<usize>() {
            Ok(number) if number <= MOST => Ok(Some(number)),
            Err(_) if digits.is_empty() => Ok(None),
            _ => fail(format!("the width {digits} is too large")),
        }
    };
    verb.width = number(&mut rest)?.unwrap_or(0);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        verb.precision = Some(number(&mut rest)?.unwrap_or(0));
    }
    if let Some(after) = rest.strip_prefix('[') {
        rest = after;
        let index = number(&mut rest)?.filter(|index| *index > 0);
        let closed = rest.strip_prefix(']');
        let (Some(index), Some(after)) = (index, closed) else {
            return fail("an argument of a format is named as `%[1]s`");
        };
        verb.argument = Some(index - 1);
        rest = after;
    }
    let Some(letter) = rest.chars().next() else { return fail("the format ends inside a verb") };
    verb.letter = letter;
    Ok((verb, &rest[letter.len_utf8()..]))
}

fn pad(verb: &Verb, text: String) -> String {
    use unicode_segmentation::UnicodeSegmentation as _;
    let length = text.graphemes(true).count();
    let missing = verb.width.saturating_sub(length);
    if verb.minus {
        return format!("{text}{}", " ".repeat(missing));
    }
    if verb.zero && !matches!(verb.letter, 'v' | 's' | 'q') {
        let digits = text.trim_start_matches(['-', '+', ' ']);
        let marks = ["0b", "0x", "0X"].into_iter().filter(|_| verb.sharp);
        let digits = marks.fold(digits, |digits, mark| digits.strip_prefix(mark).unwrap_or(digits));
        let (before, digits) = text.split_at(text.len() - digits.len());
        return format!("{before}{}{digits}", "0".repeat(missing));
    }
    format!("{}{text}", " ".repeat(missing))
}

fn formatted(verb: &Verb, value: &Value) -> Result<String> {
    let as_type = |kind: Type| {
        if value.is_null() {
            return fail(format!("unsupported value for `%{}`: null", verb.letter));
        }
        convert(value, &kind).map_err(|error| {
            Problem::new(format!("unsupported value for `%{}`", verb.letter))
                .because(error.to_string())
                .into()
        })
    };
    match verb.letter {
        'v' if verb.sharp => Ok(json::encode(value)),
        'v' => Ok(match value {
            Value::Null => "null".to_owned(),
            Value::Number(number) => signed(verb, number_text(number)),
            other => other.to_text().unwrap_or_else(|| json::encode(other)),
        }),
        's' | 'q' => {
            let mut text = as_type(Type::String)?.to_text().unwrap_or_default();
            if let Some(precision) = verb.precision {
                use unicode_segmentation::UnicodeSegmentation as _;
                text = text.graphemes(true).take(precision).collect();
            }
            Ok(if verb.letter == 'q' { json::encode(&Value::String(text)) } else { text })
        }
        't' => Ok(as_type(Type::Bool)?.to_text().unwrap_or_default()),
        'd' | 'b' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match as_type(Type::Number)? {
            Value::Number(number) => Ok(signed(verb, number_verb(verb, &number)?)),
            _ => fail("a number is required"),
        },
        other => Err(Problem::new(format!("unsupported format verb `%{other}`"))
            .hint("verbs are %v %#v %s %q %d %f %e %g %b %o %x %X %t")
            .into()),
    }
}

fn signed(verb: &Verb, text: String) -> String {
    match text.starts_with('-') {
        false if verb.plus => format!("+{text}"),
        false if verb.space => format!(" {text}"),
        _ => text,
    }
}

fn number_verb(verb: &Verb, number: &BigDecimal) -> Result<String> {
    let in_base = |base: u32, mark: &str| {
        let integer = number.with_scale_round(0, RoundingMode::Down).as_bigint_and_exponent().0;
        let digits = integer.to_str_radix(base);
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
        format!("{sign}{}{digits}", if verb.sharp { mark } else { "" })
    };
    if matches!(verb.letter, 'd' | 'b' | 'o' | 'x' | 'X') && !number.is_integer() {
        return fail(format!("unsupported value for `%{}`: an integer is required", verb.letter));
    }
    let float = || number.to_f64().unwrap_or(f64::NAN);
    let precision = verb.precision.unwrap_or(6);
    Ok(match verb.letter {
        'd' => in_base(10, ""),
        'b' => in_base(2, "0b"),
        'o' => in_base(8, "0"),
        'x' => in_base(16, "0x"),
        'X' => in_base(16, "0x").to_uppercase(),
        'f' | 'F' => {
            let scale = i64::try_from(precision).unwrap_or(6);
            let rounded = number.abs().with_scale_round(scale, RoundingMode::HalfEven).to_plain_string();
            if number.is_negative() { format!("-{rounded}") } else { rounded }
        }
        'e' | 'E' => {
            let text = exponent(&format!("{:.*e}", precision, float()));
            if verb.letter == 'E' { text.to_uppercase() } else { text }
        }
        _ => {
            // %g chooses the shorter form.
            let shortest = format!("{:e}", float());
            let power: i32 = shortest.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
            let text = if (-4..21).contains(&power) { number_text(number) } else { exponent(&shortest) };
            if verb.letter == 'G' { text.to_uppercase() } else { text }
        }
    })
}

/// Writes an exponent with its sign and two digits, as C does.
fn exponent(text: &str) -> String {
    let Some((digits, power)) = text.split_once('e') else { return text.to_owned() };
    let (sign, power) = match power.strip_prefix('-') {
        Some(power) => ('-', power),
        None => ('+', power),
    };
    format!("{digits}e{sign}{power:0>2}")
}
