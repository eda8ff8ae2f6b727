//! Names for builders that nobody named.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

const FIRST: [&str; 24] = [
    "amber", "brisk", "calm", "deft", "eager", "fond", "glad", "hardy", "ideal", "jolly", "keen", "lucid",
    "mellow", "noble", "open", "placid", "quiet", "ready", "steady", "tidy", "upbeat", "vivid", "warm",
    "zesty",
];
const SECOND: [&str; 24] = [
    "anchor", "beacon", "capstan", "dock", "estuary", "fender", "galley", "harbour", "inlet", "jetty",
    "keel", "lantern", "mast", "narrows", "oar", "pier", "quay", "rudder", "sail", "tiller", "upstream",
    "vessel", "wharf", "yard",
];

/// Makes up a name.
pub(crate) fn random_name() -> String {
    let number = RandomState::new().build_hasher().finish();
    let pick = |list: &[&'static str; 24], number: u64| list[(number % 24) as usize];
    format!("{}_{}", pick(&FIRST, number), pick(&SECOND, number >> 32))
}
