//! The form in which a run's evidence is kept in its status: one string, which only the controller reads.
//!
//! It stays in the object that says where the run stands: written by the same compare-and-swap, the evidence is never older or
//! newer than its run. As JSON it would be longer than all the rest of the status, and nobody reads it. A string that can't be
//! read is no evidence: then it is counted anew from the source.

use std::sync::Arc;

use super::EvidenceState;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

/// Higher levels shorten it by less than a hundredth.
const LEVEL: u8 = 6;
/// A state of 10 guards and 200 pods is a fifth of this, in bytes.
const LONGEST: usize = 4 << 20;

/// Packs a state.
///
/// # Errors
/// It can't be written as JSON.
pub fn serialize<S: Serializer>(
    state: &Option<Arc<EvidenceState>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let packed = state.as_deref().map(pack).transpose().map_err(ser::Error::custom)?;
    packed.serialize(serializer)
}

/// Unpacks a state; none from what is none.
///
/// # Errors
/// None of its own.
pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Arc<EvidenceState>>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.as_ref().and_then(serde_json::Value::as_str).and_then(unpack).map(Arc::new))
}

fn pack(state: &EvidenceState) -> Result<String, serde_json::Error> {
    let json = serde_json::to_vec(state)?;
    Ok(BASE64_STANDARD_NO_PAD.encode(compress_to_vec_zlib(&json, LEVEL)))
}

fn unpack(text: &str) -> Option<EvidenceState> {
    let bytes = BASE64_STANDARD_NO_PAD.decode(text).ok()?;
    let json = decompress_to_vec_zlib_with_limit(&bytes, LONGEST).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Serialize, Deserialize)]
    struct Kept {
        #[serde(default, with = "super")]
        evidence: Option<Arc<EvidenceState>>,
    }

    #[test]
    fn what_is_packed_is_unpacked_to_the_last_bit() {
        let mut state = EvidenceState::default();
        state.guard_mut("errors").counts.canary.n = 0.1 + 0.2;
        state.guard_mut("errors").last_seen = Some("2026-01-01T00:00:00.123456789Z".parse().unwrap());
        let kept = serde_json::to_value(Kept { evidence: Some(Arc::new(state.clone())) }).unwrap();
        assert!(kept["evidence"].is_string(), "{kept}");
        let read: Kept = serde_json::from_value(kept).unwrap();
        assert_eq!(read.evidence.as_deref(), Some(&state));
    }

    #[test]
    fn what_cannot_be_read_is_no_evidence_and_no_error() {
        let good = pack(&EvidenceState::default()).unwrap();
        for evidence in
            [json!(null), json!(""), json!("%"), json!(good[1..]), json!({"guards": []}), json!(7)]
        {
            let read: Kept = serde_json::from_value(json!({"evidence": evidence})).unwrap();
            assert_eq!(read.evidence, None, "{evidence}");
        }
        let none: Kept = serde_json::from_value(json!({})).unwrap();
        assert_eq!(none.evidence, None);
    }
}
