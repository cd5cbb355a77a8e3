//! Photos that differ in their bytes or pixels but not in what they show.

/// A JPEG with a comment segment (marker `FF FE`, ITU T.81 B.2.4.5) behind its start marker: another file, the same
/// picture. `None` where the bytes are not a JPEG or the comment is longer than a segment holds (65,533 bytes).
#[must_use]
pub fn with_comment(jpeg: &[u8], comment: &str) -> Option<Vec<u8>> {
    let rest = jpeg.strip_prefix(&[0xFF, 0xD8])?;
    let length = u16::try_from(comment.len() + 2).ok()?;
    let mut out = Vec::with_capacity(jpeg.len() + comment.len() + 4);
    out.extend_from_slice(&[0xFF, 0xD8, 0xFF, 0xFE]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(comment.as_bytes());
    out.extend_from_slice(rest);
    Some(out)
}

/// Steps of the brightness table that [`another_picture`] changes, in the zigzag order of ITU T.81: fine enough not to be seen, coarse
/// enough that every photo has something there; a display at night has nothing at 21 and 26.
const STEPS: [usize; 20] = [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 27];

/// Another picture of the same, for each `n` below 2^20: a JPEG whose pixels differ from those of every other `n`, as two photos of one
/// dashboard do. Each bit of `n` makes a step of the first quantization table larger by one. `None` where the bytes are no JPEG with such
/// a table of 8 bits.
#[must_use]
pub fn another_picture(jpeg: &[u8], n: usize) -> Option<Vec<u8>> {
    let mut out = jpeg.to_vec();
    let mut at = 2;
    // Segments: marker, length with itself, content. The tables stand before the scan (FF DA).
    while *jpeg.get(at)? == 0xFF && *jpeg.get(at + 1)? != 0xDA {
        let length = usize::from(u16::from_be_bytes([*jpeg.get(at + 2)?, *jpeg.get(at + 3)?]));
        if (jpeg[at + 1], *jpeg.get(at + 4)?) == (0xDB, 0) {
            for (_, step) in STEPS.into_iter().enumerate().filter(|(bit, _)| n >> bit & 1 == 1) {
                let value = out.get_mut(at + 5 + step)?;
                *value = value.checked_add(1)?;
            }
            return Some(out);
        }
        at += 2 + length;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn each_number_makes_another_picture_of_every_sample_that_is_read_with_certainty() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
        for sample in Scenario::read(&folder).unwrap().verified_jpegs() {
            let jpeg = std::fs::read(folder.join(&sample.file)).unwrap();
            let numbers = [0].into_iter().chain((0..STEPS.len()).map(|bit| 1 << bit));
            let hashes: BTreeSet<String> = numbers
                .map(|n| reading::decode(&another_picture(&jpeg, n).unwrap()).unwrap().pixel_hash())
                .collect();
            assert_eq!(hashes.len(), 1 + STEPS.len(), "{}", sample.file);
        }
        assert_eq!(another_picture(b"\x89PNG", 1), None);
    }

    #[test]
    fn a_comment_stands_behind_the_start_marker_and_the_rest_is_unchanged() {
        let out = with_comment(&[0xFF, 0xD8, 1, 2, 3], "ab").unwrap();
        assert_eq!(out, [0xFF, 0xD8, 0xFF, 0xFE, 0, 4, b'a', b'b', 1, 2, 3]);
        assert_eq!(with_comment(b"\x89PNG", "ab"), None);
    }
}
