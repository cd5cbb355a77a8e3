//! The size of a coded picture, from its sequence parameter sets (ITU-T H.265 clause 7.3.2.2).
//!
//! The container's word for the size is not enough: a small picture may be a window of a huge coded one, which the decoder
//! allocates whole.

use super::{HeifError, cursor::Cursor};

/// NAL unit type of a sequence parameter set.
const SPS: u8 = 33;
/// Bytes of `hvcC` before its arrays of NAL units (ISO/IEC 14496-15 clause 8.3.3.1), the last of which counts the arrays.
const HEAD: usize = 23;

/// Samples of luma and chroma together of the largest picture that a decoder's configuration describes.
///
/// # Errors
/// [`HeifError`]: the configuration is damaged or has no sequence parameter set.
pub(super) fn most_samples(config: &[u8]) -> Result<u64, HeifError> {
    let mut config = Cursor(config);
    let arrays = config.take(HEAD)?[HEAD - 1];
    let mut most = None;
    for _ in 0..arrays {
        let kind = config.u8()? & 0x3F;
        for _ in 0..config.u16()? {
            let length = usize::from(config.u16()?);
            let unit = config.take(length)?;
            // A layer above the base has another syntax and is not decoded: its id is the 6 bits behind the type.
            let base = matches!(unit, [first, second, ..] if first & 1 == 0 && second >> 3 == 0);
            if kind == SPS && base {
                most = most.max(Some(samples(unit)?));
            }
        }
    }
    most.ok_or(HeifError::Damaged("no sequence parameter set"))
}

fn samples(unit: &[u8]) -> Result<u64, HeifError> {
    let mut bits = Bits { payload: unescaped(unit.get(2..).unwrap_or_default()), at: 0 };
    bits.skip(4); // Id of the video parameter set.
    let sub_layers = bits.read(3)?;
    bits.skip(1 + 88 + 8); // Nesting; profile and level of all.
    let present =
        (0..sub_layers).map(|_| Ok((bits.read(1)?, bits.read(1)?))).collect::<Result<Vec<_>, HeifError>>()?;
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers as usize));
    }
    for (profile, level) in present {
        bits.skip(88 * profile as usize + 8 * level as usize);
    }
    bits.exponential()?; // Its own id.
    let chroma = bits.exponential()?;
    if chroma == 3 {
        bits.skip(1); // Separate planes.
    }
    let (width, height) = (bits.exponential()?, bits.exponential()?);
    let luma = width * height;
    match chroma {
        0 => Ok(luma),
        1 => Ok(luma + luma.div_ceil(2)),
        2 => Ok(luma * 2),
        3 => Ok(luma * 3),
        _ => Err(HeifError::Damaged("an unknown arrangement of chroma")),
    }
}

/// The first bytes of a unit without the 3 that stands behind two zeros (clause 7.3.1.1).
fn unescaped(unit: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut zeros = 0;
    // All that is asked for lies within far fewer bytes: at most 12 of profile for each of 8 layers, and the numbers.
    for byte in unit.iter().take(256) {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        payload.push(*byte);
    }
    payload
}

struct Bits {
    payload: Vec<u8>,
    at: usize,
}

impl Bits {
    fn skip(&mut self, bits: usize) {
        self.at += bits;
    }

    fn read(&mut self, bits: u32) -> Result<u64, HeifError> {
        let mut value = 0;
        for _ in 0..bits {
            let byte =
                self.payload.get(self.at / 8).ok_or(HeifError::Damaged("a parameter set that ends early"))?;
            value = (value << 1) | u64::from((byte >> (7 - self.at % 8)) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    /// A number in exponential Golomb code (clause 9.2), of at most 31 bits.
    fn exponential(&mut self) -> Result<u64, HeifError> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return Err(HeifError::Damaged("a number of more than 31 bits"));
            }
        }
        Ok((1 << zeros) - 1 + self.read(zeros)?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `hvcC` with one parameter set.
    pub fn config(unit: &[u8]) -> Vec<u8> {
        let mut config = vec![0; HEAD - 1];
        config.extend([1, 0x80 | SPS, 0, 1, 0, u8::try_from(unit.len()).unwrap()]);
        config.extend(unit);
        config
    }

    /// A set of one layer: chroma 4:2:0, then the sides, each as so many zeros as the number and one has bits less one, and that.
    pub fn set(sides: [u32; 2]) -> Vec<u8> {
        let mut bits = "0000".to_owned() + "000" + "1" + &"0".repeat(96) + "1" + "010";
        for side in sides {
            let code = format!("{:b}", side + 1);
            bits += &("0".repeat(code.len() - 1) + &code);
        }
        bits += "1";
        let bytes = bits.as_bytes().chunks(8).map(|byte| {
            byte.iter().enumerate().fold(0, |value, (at, bit)| value | ((bit - b'0') << (7 - at)))
        });
        let mut unit = vec![SPS << 1, 1];
        // Two zeros are followed by a 3 wherever less than 4 would follow.
        let mut zeros = 0;
        for byte in bytes {
            if zeros >= 2 && byte < 4 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }

    #[test]
    fn the_samples_of_a_coded_picture_are_those_of_its_parameter_set() {
        assert_eq!(most_samples(&config(&set([4096, 3072]))), Ok(4096 * 3072 * 3 / 2));
    }

    #[test]
    fn a_parameter_set_that_is_missing_or_cut_is_no_picture() {
        let whole = config(&set([4096, 3072]));
        assert_eq!(most_samples(&whole[..whole.len() - 1]), Err(HeifError::Cut));
        assert!(matches!(most_samples(&config(&set([4096, 3072])[..10])), Err(HeifError::Damaged(_))));
        assert!(matches!(most_samples(&config(&[SPS << 1, 1 << 3, 0])), Err(HeifError::Damaged(_))));
    }
}
