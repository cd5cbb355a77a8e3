use image::Rgb;

use super::*;

fn grey(side: u32, level: impl Fn(u32, u32) -> u8) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| Rgb([level(x, y); 3]))
}

fn measure(frame: &RgbImage) -> Measured {
    let plane = luma(frame);
    Measured::of(frame, &plane, &squared_gradients(&plane))
}

fn numbers(measured: &Measured) -> [f64; 5] {
    [measured.mean, measured.p5, measured.p99, measured.tenengrad, measured.blob]
}

#[test]
fn a_solid_picture_has_one_level_everywhere_and_no_sharpness() {
    let measured = measure(&grey(64, |_, _| 77));
    assert_eq!(numbers(&measured), [77.0, 77.0, 77.0, 0.0, 0.0]);
}

#[test]
fn a_ramp_of_one_level_a_pixel_has_sharpness_one() {
    let measured = measure(&grey(256, |x, _| x as u8));
    // 5 % of 65,536 pixels is the 3,277th: level 12 ends at 3,328; 99 % is the 64,881st: level 253 ends at 65,024. The 11
    // columns from 245 on are a white blob.
    assert_eq!(numbers(&measured), [127.5, 12.0, 253.0, 1.0, 11.0 / 256.0]);
}

#[test]
fn a_checkerboard_is_as_sharp_as_the_share_of_its_edges() {
    let measured = measure(&grey(160, |x, y| if (x / 16 + y / 16) % 2 == 0 { 0 } else { 200 }));
    // 18 of 158 inner columns, and rows, lie at an edge. There the gradient is 100; where both meet, 50 in each direction.
    let edge = 18.0 / 158.0;
    let tenengrad = 20_000.0 * edge * (1.0 - edge) + 5_000.0 * edge * edge;
    assert_eq!((measured.mean, measured.p5, measured.p99, measured.blob), (100.0, 0.0, 200.0, 0.0));
    assert!((measured.tenengrad - tenengrad).abs() < 1e-6, "{}", measured.tenengrad);
}

#[test]
fn only_the_largest_white_blob_counts_and_a_tint_is_not_white() {
    let blobs = |x: u32, y: u32| match (x, y) {
        (10..60, 10..110) => [250, 246, 252],
        (80..120, 10..110) => [255; 3],
        (130..200, 0..200) => [255, 255, 241],
        _ => [40; 3],
    };
    let frame = RgbImage::from_fn(200, 200, |x, y| Rgb(blobs(x, y)));
    assert_eq!(near_white_blob(&frame), 5_000.0 / 40_000.0);
}

fn measured(mean: f64, p5: f64, p99: f64, tenengrad: f64, blob: f64) -> Measured {
    Measured { mean, p5, p99, tenengrad, blob }
}

const FINE: Measured = Measured { mean: 60.0, p5: 10.0, p99: 220.0, tenengrad: 90.0, blob: 0.0 };
const FINE_BOX: BoxMetrics = BoxMetrics { mean: 60.0, contrast: 120.0, gradient: 30.0, glare: 0.0 };

#[test]
fn the_score_is_half_the_worst_and_half_the_mean_truncated() {
    let cases = [
        (FINE, None, 100),
        (measured(6.75, 10.0, 220.0, 16.0, 0.1575), None, 50),
        // Light 1, sharpness 0.25, glare 1: (0.25 + 0.75) / 2.
        (measured(60.0, 10.0, 220.0, 12.0, 0.0), None, 50),
        // (0 + 2/3) / 2 = 0.333…
        (measured(60.0, 150.0, 220.0, 90.0, 0.0), None, 33),
        // The box counts as a fourth part: (0.5 + 3.5 / 4) / 2 = 0.6875.
        (FINE, Some(BoxMetrics { contrast: 40.0, ..FINE_BOX }), 68),
        (FINE, Some(BoxMetrics { glare: 0.5, ..FINE_BOX }), 37),
        (FINE, Some(FINE_BOX), 100),
    ];
    for (frame, reading, hundredth) in cases {
        assert_eq!(score(&frame, reading.as_ref()), Decimal::new(hundredth, 2), "{frame:?} {reading:?}");
    }
}

#[test]
fn light_is_poor_below_a_limit_and_fair_within_twice_of_it() {
    let of = |change: fn(&mut Measured)| {
        let mut frame = FINE;
        change(&mut frame);
        lighting(&frame, None)
    };
    assert_eq!(of(|_| ()), Lighting::Good);
    assert_eq!(of(|m| m.mean = 4.4), Lighting::Poor);
    assert_eq!(of(|m| m.mean = 8.9), Lighting::Fair);
    assert_eq!(of(|m| m.p99 = 19.0), Lighting::Poor);
    assert_eq!(of(|m| m.p99 = 39.0), Lighting::Fair);
    assert_eq!(of(|m| m.p5 = 101.0), Lighting::Poor);
    assert_eq!(of(|m| m.p5 = 51.0), Lighting::Fair);
    assert_eq!(lighting(&FINE, Some(&BoxMetrics { mean: 9.0, ..FINE_BOX })), Lighting::Poor);
    assert_eq!(lighting(&FINE, Some(&BoxMetrics { contrast: 39.0, ..FINE_BOX })), Lighting::Fair);
}

#[test]
fn nothing_sharp_anywhere_is_a_fault_that_names_what_is_wrong() {
    let reason = |frame: Measured| frame.fault(LEAST_SHARP - 1.0).map(|fault| fault.reason);
    assert_eq!(reason(FINE), Some(Reason::Blurred));
    assert_eq!(reason(Measured { mean: 4.4, ..FINE }), Some(Reason::TooDark));
    assert_eq!(reason(Measured { p5: 150.0, ..FINE }), Some(Reason::OverExposed));
    assert_eq!(reason(Measured { blob: 0.31, ..FINE }), Some(Reason::Glare));
}

#[test]
fn a_small_sharp_display_in_a_black_or_blurred_photo_is_no_fault() {
    let lit = grey(1024, |x, y| {
        let inside = (500..580).contains(&x) && (500..540).contains(&y);
        if inside && x / 4 % 2 == 0 { 120 } else { 2 }
    });
    let gradients = squared_gradients(&luma(&lit));
    let frame = measure(&lit);
    assert!(frame.mean < 4.5 && frame.tenengrad < 8.0, "{frame:?}");
    assert_eq!(frame.fault(sharpest(&gradients, 1022)), None);
}

#[test]
fn the_sharpest_square_is_a_whole_one() {
    let mut gradients = vec![0.0; 70 * 70];
    gradients[69] = 1e6;
    assert_eq!(sharpest(&gradients, 70), 0.0);
    gradients[33] = 1_024.0;
    assert_eq!(sharpest(&gradients, 70), 1.0);
}

#[test]
fn issues_name_everything_that_is_wrong() {
    let bad = measured(4.0, 2.0, 19.0, 5.0, 0.1);
    let quality = bad.quality();
    assert_eq!(
        bad.issues(quality.blur, quality.glare, quality.lighting),
        ["blur", "glare", "poor_lighting", "too_dark"]
    );
    let fine = FINE.quality();
    assert!(FINE.issues(fine.blur, fine.glare, fine.lighting).is_empty());
}

#[test]
fn where_a_number_was_found_its_box_alone_is_blurred_or_dazzled() {
    let frame = FINE.quality();
    let blurred = together(&frame, Some(&BoxMetrics { gradient: 4.4, ..FINE_BOX }));
    assert!(blurred.blur && !blurred.glare);
    let dazzled = together(&frame, Some(&BoxMetrics { glare: 0.51, ..FINE_BOX }));
    assert!(dazzled.glare && dazzled.issues == ["glare"]);
    let around = measured(60.0, 10.0, 220.0, 5.0, 0.4).quality();
    assert!(around.blur && around.glare);
    let sharp = together(&around, Some(&FINE_BOX));
    assert!(!sharp.blur && !sharp.glare && sharp.issues.is_empty());
}

#[test]
fn a_large_photo_is_measured_at_1024_pixels_and_a_small_one_as_it_is() {
    let large = RgbImage::new(4000, 3000);
    assert_eq!(shrunk(&large, LONG_SIDE).map(|frame| frame.dimensions()), Some((1024, 768)));
    assert!(shrunk(&RgbImage::new(1024, 768), LONG_SIDE).is_none());
}

#[test]
fn hundredths_are_truncated_but_not_below_an_exact_value() {
    assert_eq!(hundredths(0.29), Decimal::new(29, 2));
    assert_eq!(hundredths(0.999), Decimal::new(99, 2));
}
