//! Photos that differ in their bytes but not in what they show.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_stands_behind_the_start_marker_and_the_rest_is_unchanged() {
        let out = with_comment(&[0xFF, 0xD8, 1, 2, 3], "ab").unwrap();
        assert_eq!(out, [0xFF, 0xD8, 0xFF, 0xFE, 0, 4, b'a', b'b', 1, 2, 3]);
        assert_eq!(with_comment(b"\x89PNG", "ab"), None);
    }
}
