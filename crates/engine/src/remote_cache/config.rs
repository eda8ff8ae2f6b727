//! The cache config that BuildKit calls v0: layers, and records of keys that lead to them.
//!
//! Our records are valid ones of that form: `digest` is the canonical key, `inputs` name the records of the
//! inputs, `layers` the result. Our keys are not BuildKit's, so neither hits on what the other wrote; what is
//! needed besides to hit on our own is in a member `slipway`, which BuildKit passes over.
//!
//! What comes from elsewhere is checked whole before any of it is used: an index that leads nowhere or chains
//! that never end make the config unusable. A layer that is unknown makes the results on it unusable, no more.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use slipway_model::{Descriptor, Digest};

/// Says that a blob is a cache config.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The member of an image config that has the records of an inline cache.
pub(crate) const INLINE: &str = "moby.buildkit.cache.v0";
/// Annotations of a layer's descriptor.
pub(crate) const DIFF_ID: &str = "containerd.io/uncompressed";
pub(crate) const CREATED: &str = "buildkit/createdat";
pub(crate) const DESCRIPTION: &str = "buildkit/description";

/// More layers than this cannot be mounted.
const MAX_DEPTH: usize = 1000;
/// How many keys of a record are written and read.
pub(crate) const MAX_KEYS: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<CacheRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheLayer {
    #[serde(default)]
    pub(crate) blob: String,
    /// The layer below; -1 is none, and a missing member is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<LayerAnnotations>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LayerAnnotations {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(rename = "diffID", skip_serializing_if = "String::is_empty")]
    pub(crate) diff_id: String,
    pub(crate) size: i64,
    pub(crate) created_at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CacheRecord {
    /// Results, each the top layer of a chain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<CacheResult>,
    /// Results, each a list of layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) chains: Vec<ChainedResult>,
    pub(crate) digest: String,
    /// For each input, the records that it may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) inputs: Vec<Vec<CacheInput>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slipway: Option<OwnRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheResult {
    pub(crate) layer: i64,
    #[serde(default)]
    pub(crate) created_at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChainedResult {
    pub(crate) layers: Vec<i64>,
    #[serde(default)]
    pub(crate) created_at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheInput {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) selector: String,
    pub(crate) link: i64,
}

/// What only slipway reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OwnRecord {
    /// Other keys that lead to the record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<Digest>,
    /// All outputs of the step, if it has a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outputs: Option<Vec<Top>>,
}

/// An output of a step, as the top of a chain of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<i64>", into = "Option<i64>")]
pub(crate) enum Top {
    /// The cache has it not; -1.
    Absent,
    /// No files; `null`.
    Empty,
    Layer(usize),
}

impl From<Option<i64>> for Top {
    fn from(index: Option<i64>) -> Self {
        match index {
            None => Self::Empty,
            Some(index) => usize::try_from(index).map_or(Self::Absent, Self::Layer),
        }
    }
}

impl From<Top> for Option<i64> {
    fn from(top: Top) -> Self {
        match top {
            Top::Absent => Some(-1),
            Top::Empty => None,
            Top::Layer(index) => Some(index as i64),
        }
    }
}

impl Top {
    pub(crate) fn layer(self) -> Option<usize> {
        match self {
            Self::Layer(index) => Some(index),
            Self::Absent | Self::Empty => None,
        }
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A layer that can be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) created: Option<SystemTime>,
    pub(crate) description: String,
    pub(crate) parent: Option<usize>,
}

/// A record that can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// Keys that lead here, besides the canonical one.
    pub(crate) keys: Vec<Digest>,
    /// By index; `None` is one that the cache has not.
    pub(crate) outputs: Vec<Option<Output>>,
}

/// An output that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Empty,
    /// The top of a chain of layers.
    Layer(usize),
}

/// A config that was checked: every index leads somewhere, every chain ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    /// By position; `None` is one that cannot be used.
    pub(crate) layers: Vec<Option<Layer>>,
    /// By canonical key; in order, so that the same config always gives the same answers.
    pub(crate) records: BTreeMap<Digest, Record>,
}

impl CacheConfig {
    /// Checks a config; `blobs` are those that come with it.
    pub(crate) fn check(&self, blobs: &HashMap<Digest, Descriptor>) -> Result<Checked, String> {
        let parents = self.parents()?;
        let layers: Vec<Option<Layer>> =
            self.layers.iter().zip(&parents).map(|(layer, parent)| layer.check(*parent, blobs)).collect();
        let usable = usable(&parents, &layers)?;
        let mut records: BTreeMap<Digest, Record> = BTreeMap::new();
        for (position, record) in self.records.iter().enumerate() {
            self.check_indices(position, record)?;
            let Some(own) = &record.slipway else { continue };
            let Ok(canonical) = record.digest.parse::<Digest>() else { continue };
            let output = |top: &Top| match top {
                Top::Empty => Some(Output::Empty),
                Top::Layer(top) if usable[*top] => Some(Output::Layer(*top)),
                Top::Layer(_) | Top::Absent => None,
            };
            let checked = Record {
                keys: own.keys.iter().take(MAX_KEYS).copied().collect(),
                outputs: own.outputs.iter().flatten().map(output).collect(),
            };
            records.entry(canonical).or_insert(checked);
        }
        Ok(Checked { layers, records })
    }

    /// Describes the blobs, as far as the layers themselves do.
    pub(crate) fn described(&self) -> HashMap<Digest, Descriptor> {
        let describe = |layer: &CacheLayer| {
            let (digest, stated) = (layer.blob.parse().ok()?, layer.annotations.as_ref()?);
            let size = u64::try_from(stated.size).ok()?;
            Some((digest, Descriptor::new(&stated.media_type, digest, size)))
        };
        self.layers.iter().filter_map(describe).collect()
    }

    fn parents(&self) -> Result<Vec<Option<usize>>, String> {
        let parent = |(position, layer): (usize, &CacheLayer)| match layer.parent {
            -1 => Ok(None),
            parent => self.layer(parent).map(Some).ok_or(format!("layer {position} is on layer {parent}")),
        };
        self.layers.iter().enumerate().map(parent).collect()
    }

    fn layer(&self, index: i64) -> Option<usize> {
        usize::try_from(index).ok().filter(|index| *index < self.layers.len())
    }

    fn check_indices(&self, position: usize, record: &CacheRecord) -> Result<(), String> {
        let chains = record.chains.iter().flat_map(|chain| &chain.layers).copied();
        if let Some(layer) =
            record.layers.iter().map(|r| r.layer).chain(chains).find(|layer| self.layer(*layer).is_none())
        {
            return Err(format!("record {position} refers to layer {layer}"));
        }
        let known = |link: i64| usize::try_from(link).is_ok_and(|link| link < self.records.len());
        if let Some(input) = record.inputs.iter().flatten().find(|input| !known(input.link)) {
            return Err(format!("record {position} refers to record {}", input.link));
        }
        let outputs = record.slipway.iter().flat_map(|own| own.outputs.iter().flatten());
        match outputs.filter_map(|top| top.layer()).find(|top| *top >= self.layers.len()) {
            Some(top) => Err(format!("record {position} refers to layer {top}")),
            None => Ok(()),
        }
    }
}

impl CacheLayer {
    fn check(&self, parent: Option<usize>, blobs: &HashMap<Digest, Descriptor>) -> Option<Layer> {
        let mut descriptor = blobs.get(&self.blob.parse().ok()?)?.clone();
        if !crate::sources::is_layer(&descriptor.media_type) {
            return None;
        }
        let stated = self.annotations.as_ref();
        let told = std::mem::take(&mut descriptor.annotations);
        let diff_id = stated.map(|a| &a.diff_id).filter(|id| !id.is_empty()).or(told.get(DIFF_ID))?;
        let created = stated.map(|a| &a.created_at).filter(|time| !time.is_empty()).or(told.get(CREATED));
        Some(Layer {
            diff_id: diff_id.parse().ok()?,
            created: created.and_then(|time| time.parse::<jiff::Timestamp>().ok()).map(SystemTime::from),
            description: told.get(DESCRIPTION).cloned().unwrap_or_default(),
            descriptor,
            parent,
        })
    }
}

/// Tells of each layer whether it and all below it can be used; refuses chains that do not end.
fn usable(parents: &[Option<usize>], layers: &[Option<Layer>]) -> Result<Vec<bool>, String> {
    // How many layers a chain has; `None` is not known yet.
    let mut depths: Vec<Option<usize>> = vec![None; parents.len()];
    let mut usable = vec![false; parents.len()];
    for start in 0..parents.len() {
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(layer) = at.filter(|layer| depths[*layer].is_none()) {
            path.push(layer);
            if path.len() > MAX_DEPTH {
                return Err(format!("the layers below layer {start} do not end"));
            }
            at = parents[layer];
        }
        for layer in path.into_iter().rev() {
            let below = parents[layer];
            let depth = below.and_then(|below| depths[below]).unwrap_or_default() + 1;
            if depth > MAX_DEPTH {
                return Err(format!("there are more than {MAX_DEPTH} layers below layer {layer}"));
            }
            depths[layer] = Some(depth);
            usable[layer] = layers[layer].is_some() && below.is_none_or(|below| usable[below]);
        }
    }
    Ok(usable)
}

impl Checked {
    /// Lists the layers of a chain, lowest first.
    pub(crate) fn chain(&self, top: usize) -> Vec<&Layer> {
        let mut chain = Vec::new();
        let mut at = Some(top);
        while let Some(layer) = at.and_then(|at| self.layers.get(at)?.as_ref()) {
            chain.push(layer);
            at = layer.parent;
        }
        chain.reverse();
        chain
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::MediaType;

    use super::*;

    fn blob(name: &str) -> Descriptor {
        let mut descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, name.as_bytes());
        descriptor.annotations.insert(DIFF_ID.to_owned(), Digest::of(format!("{name}.tar")).to_string());
        descriptor
    }

    fn blobs(names: &[&str]) -> HashMap<Digest, Descriptor> {
        names.iter().map(|name| (blob(name).digest, blob(name))).collect()
    }

    fn layer(name: &str, parent: i64) -> CacheLayer {
        CacheLayer { blob: blob(name).digest.to_string(), parent, annotations: None }
    }

    fn record(name: &str, top: usize) -> CacheRecord {
        let own = OwnRecord {
            keys: vec![Digest::of(format!("alias of {name}"))],
            outputs: Some(vec![Top::Layer(top)]),
        };
        CacheRecord {
            layers: vec![CacheResult { layer: top as i64, created_at: "2024-01-01T00:00:00Z".to_owned() }],
            digest: Digest::of(name).to_string(),
            slipway: Some(own),
            ..CacheRecord::default()
        }
    }

    #[test]
    fn the_form_is_buildkit_s() {
        let mut second = record("b", 1);
        second.inputs = vec![vec![CacheInput { selector: String::new(), link: 0 }]];
        let config = CacheConfig {
            layers: vec![layer("a", -1), layer("b", 0)],
            records: vec![record("a", 0), second],
        };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["layers"][0]["parent"], -1);
        assert_eq!(json["layers"][1].get("parent"), None);
        assert_eq!(json["records"][1]["inputs"], serde_json::json!([[{ "link": 0 }]]));
        assert_eq!(json["records"][1]["layers"][0]["layer"], 1);
        assert_eq!(serde_json::from_value::<CacheConfig>(json).unwrap(), config);
        let checked = config.check(&blobs(&["a", "b"])).unwrap();
        let chain: Vec<Digest> = checked.chain(1).iter().map(|layer| layer.diff_id).collect();
        assert_eq!(chain, [Digest::of("a.tar"), Digest::of("b.tar")]);
        assert_eq!(checked.records[&Digest::of("b")].outputs, [Some(Output::Layer(1))]);
    }

    #[test]
    fn outputs_that_are_not_there_and_those_without_files_are_told_apart() {
        let mut some = record("a", 0);
        some.slipway.as_mut().unwrap().outputs = Some(vec![Top::Absent, Top::Empty, Top::Layer(0)]);
        let config = CacheConfig { layers: vec![layer("a", -1)], records: vec![some] };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["records"][0]["slipway"]["outputs"], serde_json::json!([-1, null, 0]));
        assert_eq!(serde_json::from_value::<CacheConfig>(json).unwrap(), config);
        let checked = config.check(&blobs(&["a"])).unwrap();
        let outputs = &checked.records[&Digest::of("a")].outputs;
        assert_eq!(outputs, &[None, Some(Output::Empty), Some(Output::Layer(0))]);
    }

    #[test]
    fn what_buildkit_wrote_is_read_and_has_nothing_for_us() {
        let text = r#"{"layers":[{"blob":"sha256:11","annotations":{"mediaType":"x","size":3,"createdAt":"0001-01-01T00:00:00Z"},"parent":-1}],
            "records":[{"digest":"random:1"},{"layers":[{"layer":0,"createdAt":"2024-01-01T00:00:00Z"}],
            "chains":[{"layers":[0],"createdAt":"2024-01-01T00:00:00Z"}],
            "digest":"sha256:22","inputs":[[{"selector":"s","link":0}]]}]}"#;
        let checked = serde_json::from_str::<CacheConfig>(text).unwrap().check(&HashMap::new()).unwrap();
        assert!(checked.records.is_empty());
    }

    #[test]
    fn a_missing_layer_costs_the_results_on_it() {
        let layers = vec![layer("a", -1), layer("b", 0)];
        let config = CacheConfig { layers, records: vec![record("a", 0), record("b", 1)] };
        let checked = config.check(&blobs(&["b"])).unwrap();
        assert!(checked.records.values().all(|record| record.outputs == [None] && record.keys.len() == 1));
        let checked = config.check(&blobs(&["a"])).unwrap();
        assert_eq!(checked.records[&Digest::of("a")].outputs, [Some(Output::Layer(0))]);
        assert_eq!(checked.records[&Digest::of("b")].outputs, [None]);
        // What is no layer is not used as one.
        let mut wrong = blobs(&["a", "b"]);
        wrong.values_mut().for_each(|blob| blob.media_type = "application/json".to_owned());
        assert!(config.check(&wrong).unwrap().records.values().all(|record| record.outputs == [None]));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let base =
            || CacheConfig { layers: vec![layer("a", -1), layer("b", 0)], records: vec![record("a", 0)] };
        let mut configs = vec![base(); 8];
        configs[0].layers[0].parent = 0;
        configs[1].layers[0].parent = 1;
        configs[2].layers[0].parent = 2;
        configs[3].layers[0].parent = -2;
        configs[4].records[0].layers[0].layer = 2;
        configs[5].records[0].inputs = vec![vec![CacheInput { selector: String::new(), link: -1 }]];
        configs[6].records[0].slipway.as_mut().unwrap().outputs = Some(vec![Top::Layer(9)]);
        configs[7].records[0].chains = vec![ChainedResult { layers: vec![5], created_at: String::new() }];
        for config in configs {
            config.check(&blobs(&["a", "b"])).unwrap_err();
        }
        let deep: Vec<CacheLayer> = (0..=MAX_DEPTH as i64).map(|n| layer("a", n - 1)).collect();
        CacheConfig { layers: deep.clone(), records: Vec::new() }.check(&blobs(&["a"])).unwrap_err();
        let reversed =
            (0..=MAX_DEPTH as i64).map(|n| layer("a", if n == MAX_DEPTH as i64 { -1 } else { n + 1 }));
        CacheConfig { layers: reversed.collect(), records: Vec::new() }.check(&blobs(&["a"])).unwrap_err();
        CacheConfig { layers: deep[..MAX_DEPTH].to_vec(), records: Vec::new() }
            .check(&blobs(&["a"]))
            .unwrap();
    }
}
