//! What a complete transfer listed, kept in the form in which it came, so that the next one is compared with it.
//!
//! A list is in the order of the protocol: names of one directory by their bytes, and what is in a directory right
//! after it. It is read in step with the list that comes, once, and never taken apart as a whole.

use std::cmp::Ordering;

use prost::Message as _;

use crate::fstypes::Stat;

/// The entries of a transfer, each with its length before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(Vec<u8>);

impl List {
    /// Takes what [`List::as_bytes`] gave.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Gives the list to be kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A known list, read as far as the list that comes, and the list that becomes of both.
#[derive(Debug, Default)]
pub(super) struct Known<'l> {
    /// `None` if nothing is known of the directory.
    known: Option<&'l [u8]>,
    /// The first byte that was not read yet.
    at: usize,
    next: Option<Stat>,
    /// Where `next` begins.
    begin: usize,
    /// The list that came so far, once it differs from the known one.
    now: Option<Vec<u8>>,
    /// What was listed and is not any more.
    gone: Vec<String>,
}

impl<'l> Known<'l> {
    pub(super) fn new(known: Option<&'l List>) -> Self {
        let now = known.is_none().then(Vec::new);
        let mut this = Self { known: known.map(List::as_bytes), now, ..Self::default() };
        this.advance();
        this
    }

    /// Takes the next entry that comes; tells whether it was listed so before.
    pub(super) fn is_same(&mut self, stat: &Stat) -> bool {
        let mut same = false;
        while let Some(next) = self.next.take() {
            match in_order(&next.path, &stat.path) {
                Ordering::Less => {
                    self.differ();
                    self.gone.push(next.path);
                    self.advance();
                }
                Ordering::Equal => {
                    same = next == *stat;
                    if !same {
                        self.differ();
                    }
                    self.advance();
                    break;
                }
                Ordering::Greater => {
                    self.next = Some(next);
                    break;
                }
            }
        }
        if !same {
            self.differ();
        }
        if let Some(now) = &mut self.now {
            // A vector takes any length.
            let _ = stat.encode_length_delimited(now);
        }
        same
    }

    /// Ends the comparison: gives what is not listed any more, if that is known.
    pub(super) fn end(&mut self) -> Option<Vec<String>> {
        self.known?;
        while let Some(next) = self.next.take() {
            self.differ();
            self.gone.push(next.path);
            self.advance();
        }
        Some(std::mem::take(&mut self.gone))
    }

    /// Gives the list that came.
    pub(super) fn into_list(self) -> List {
        List(self.now.unwrap_or_else(|| self.known.unwrap_or_default().to_vec()))
    }

    /// Keeps what was the same until here as the beginning of another list.
    fn differ(&mut self) {
        if let (None, Some(known)) = (&self.now, self.known) {
            self.now = Some(known[..self.begin].to_vec());
        }
    }

    /// Reads the next known entry; what cannot be read is as if it were not there.
    fn advance(&mut self) {
        let Some(known) = self.known else { return };
        self.begin = self.at;
        let mut rest = &known[self.at..];
        self.next = Stat::decode_length_delimited(&mut rest).ok();
        self.at = known.len() - rest.len();
    }
}

/// Compares paths as lists are ordered: by each name of theirs.
fn in_order(one: &str, other: &str) -> Ordering {
    if one == other {
        return Ordering::Equal;
    }
    one.split('/').cmp(other.split('/'))
}
