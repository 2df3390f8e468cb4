//! What the nodes of the shipped graph are called.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use flate2::read::GzDecoder;

/// The names of the shipped graph's nodes `ids`. One without a name is left out.
pub(super) fn shipped(ids: &[u64]) -> HashMap<u64, String> {
    let lines = BufReader::new(GzDecoder::new(NAMES)).lines();
    lines
        .map_while(Result::ok)
        .filter_map(|line| {
            let (id, name) = line.split_once('\t')?;
            let id = id.parse().ok().filter(|id| ids.contains(id))?;
            Some((id, name.to_owned()))
        })
        .collect()
}

static NAMES: &[u8] = include_bytes!("../../data/debian-names.txt.gz");

#[cfg(test)]
mod tests {
    #[test]
    fn the_shipped_names_are_found_by_id() {
        let names = super::shipped(&[16808, u64::MAX]);
        assert_eq!(names.len(), 1);
        assert_eq!(names[&16808], "libc6");
    }
}
