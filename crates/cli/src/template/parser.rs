//! Builds the tree of a template from its pieces.

use serde_json::{Number, Value};

use super::TemplateError;
use super::functions::Function;
use super::lexer::{Piece, Token};

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Output(Pipeline),
    /// The tests in turn, each with what follows it; then the rest.
    If {
        arms: Vec<(Pipeline, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        item: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// `$x := a | b c`.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) variable: Option<String>,
    pub(super) commands: Vec<Command>,
}

/// One stage of a pipeline.
#[derive(Debug)]
pub(super) enum Command {
    Value(Expression),
    Call(Function, Vec<Expression>),
}

/// Something with a value.
#[derive(Debug)]
pub(super) enum Expression {
    Literal(Value),
    Dot,
    Variable(String),
    Pipeline(Box<Pipeline>),
    /// A call without arguments among arguments.
    Call(Function),
    Field(Box<Expression>, String),
}

/// Parses the pieces of a template.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: pieces.into_iter() };
    let (nodes, end) = parser.block()?;
    match end {
        Stop::Template => Ok(nodes),
        Stop::End => Err(unexpected("end", "end")),
        Stop::Else(_) => Err(unexpected("else", "else")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
}

/// What a list of nodes ended with.
enum Stop {
    Template,
    End,
    /// `{{else}}`, or the pipeline of `{{else if …}}`.
    Else(Option<Pipeline>),
}

fn unexpected(found: &str, action: &str) -> TemplateError {
    TemplateError::Unexpected { found: found.to_owned(), action: action.to_owned() }
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, source) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { tokens, source } => (tokens, source),
            };
            let mut action = Action { tokens: tokens.into_iter().peekable(), source };
            let keyword = match action.tokens.peek() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "end" => return Ok((nodes, Stop::End)),
                "else" => {
                    action.tokens.next();
                    if action.tokens.next_if_eq(&Token::Word("if".into())).is_none() {
                        action.finish()?;
                        return Ok((nodes, Stop::Else(None)));
                    }
                    let test = action.whole_pipeline()?;
                    return Ok((nodes, Stop::Else(Some(test))));
                }
                "if" => {
                    action.tokens.next();
                    nodes.push(self.conditional(action)?);
                }
                "with" => {
                    action.tokens.next();
                    let value = action.whole_pipeline()?;
                    let (body, otherwise) = self.body("with")?;
                    nodes.push(Node::With { value, body, otherwise });
                }
                "range" => {
                    action.tokens.next();
                    let (key, item) = action.range_variables()?;
                    let over = action.whole_pipeline()?;
                    let (body, otherwise) = self.body("range")?;
                    nodes.push(Node::Range { key, item, over, body, otherwise });
                }
                _ => nodes.push(Node::Output(action.whole_pipeline()?)),
            }
        }
        Ok((nodes, Stop::Template))
    }

    fn conditional(&mut self, mut action: Action) -> Result<Node, TemplateError> {
        let mut arms = Vec::new();
        let mut test = action.whole_pipeline()?;
        loop {
            let (body, end) = self.block()?;
            arms.push((test, body));
            match end {
                Stop::End => return Ok(Node::If { arms, otherwise: Vec::new() }),
                Stop::Else(Some(next)) => test = next,
                Stop::Else(None) => {
                    let (otherwise, end) = self.block()?;
                    return match end {
                        Stop::End => Ok(Node::If { arms, otherwise }),
                        _ => Err(TemplateError::NoEnd("if".into())),
                    };
                }
                Stop::Template => return Err(TemplateError::NoEnd("if".into())),
            }
        }
    }

    /// Parses what `with` and `range` hold.
    fn body(&mut self, keyword: &str) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let no_end = || TemplateError::NoEnd(keyword.to_owned());
        let (body, end) = self.block()?;
        match end {
            Stop::End => Ok((body, Vec::new())),
            Stop::Else(None) => match self.block()? {
                (otherwise, Stop::End) => Ok((body, otherwise)),
                _ => Err(no_end()),
            },
            _ => Err(no_end()),
        }
    }
}

struct Action {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    source: String,
}

impl Action {
    fn finish(&mut self) -> Result<(), TemplateError> {
        match self.tokens.next() {
            None => Ok(()),
            Some(token) => Err(unexpected(&format!("{token:?}"), &self.source)),
        }
    }

    fn whole_pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let pipeline = self.pipeline()?;
        self.finish()?;
        Ok(pipeline)
    }

    /// Reads `$key, $item :=` or `$item :=`, if it is there.
    fn range_variables(&mut self) -> Result<(Option<String>, Option<String>), TemplateError> {
        let mut ahead = self.tokens.clone();
        let Some(Token::Variable(first)) = ahead.next() else { return Ok((None, None)) };
        match ahead.next() {
            Some(Token::Declare) => {
                self.tokens = ahead;
                Ok((None, Some(first)))
            }
            Some(Token::Comma) => match (ahead.next(), ahead.next()) {
                (Some(Token::Variable(second)), Some(Token::Declare)) => {
                    self.tokens = ahead;
                    Ok((Some(first), Some(second)))
                }
                _ => Err(unexpected(",", &self.source)),
            },
            _ => Ok((None, None)),
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let mut ahead = self.tokens.clone();
        let variable = match (ahead.next(), ahead.next()) {
            (Some(Token::Variable(name)), Some(Token::Declare | Token::Assign)) => {
                self.tokens = ahead;
                Some(name)
            }
            _ => None,
        };
        let mut commands = vec![self.command()?];
        while self.tokens.next_if_eq(&Token::Pipe).is_some() {
            commands.push(self.command()?);
        }
        Ok(Pipeline { variable, commands })
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let first = self.operand()?;
        let mut arguments = Vec::new();
        while !matches!(self.tokens.peek(), None | Some(Token::Pipe | Token::Close)) {
            arguments.push(self.operand()?);
        }
        match first {
            Expression::Call(function) => Ok(Command::Call(function, arguments)),
            value if arguments.is_empty() => Ok(Command::Value(value)),
            _ => Err(unexpected("an argument", &self.source)),
        }
    }

    fn operand(&mut self) -> Result<Expression, TemplateError> {
        let token = self.tokens.next().ok_or_else(|| unexpected("}}", &self.source))?;
        let mut expression = match token {
            Token::Dot => Expression::Dot,
            Token::Field { name, .. } => Expression::Field(Box::new(Expression::Dot), name),
            Token::Variable(name) => Expression::Variable(name),
            Token::Text(text) => Expression::Literal(Value::String(text)),
            Token::Number(number) => Expression::Literal(Value::Number(Number::clone(&number))),
            Token::Word(word) => match word.as_str() {
                "true" => Expression::Literal(Value::Bool(true)),
                "false" => Expression::Literal(Value::Bool(false)),
                "nil" => Expression::Literal(Value::Null),
                name => Expression::Call(
                    Function::named(name).ok_or_else(|| TemplateError::UnknownFunction(name.to_owned()))?,
                ),
            },
            Token::Open => {
                let inner = self.pipeline()?;
                if self.tokens.next() != Some(Token::Close) {
                    return Err(unexpected("(", &self.source));
                }
                Expression::Pipeline(Box::new(inner))
            }
            other => return Err(unexpected(&format!("{other:?}"), &self.source)),
        };
        while let Some(Token::Field { name, .. }) =
            self.tokens.next_if(|token| matches!(token, Token::Field { adjacent: true, .. }))
        {
            expression = Expression::Field(Box::new(expression), name);
        }
        Ok(expression)
    }
}
