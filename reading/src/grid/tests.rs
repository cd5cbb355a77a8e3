use std::f64::consts::TAU;

use image::{Rgb, codecs::jpeg::JpegEncoder};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rust_decimal::prelude::ToPrimitive;

use super::*;

/// A grey picture of 1,024 x 768 pixels with a sensor's noise of a level or two.
fn picture(level: impl Fn(f64, f64) -> f64) -> RgbImage {
    let mut dice = StdRng::seed_from_u64(7);
    RgbImage::from_fn(1024, 768, |x, y| {
        let noise: f64 = dice.random_range(-2.0..2.0);
        Rgb([(level(f64::from(x), f64::from(y)) + noise).round().clamp(0.0, 255.0) as u8; 3])
    })
}

/// The pattern of a screen of which each pixel is 2.7 pixels of the camera, turned a little and farther away to the right.
fn screen(x: f64, y: f64) -> f64 {
    let far = 2.7 - x / 10_000.0;
    6.0 * (TAU * (0.995 * x + 0.1 * y) / far).sin() * (1.0 + 0.5 * (TAU * (0.995 * y - 0.1 * x) / far).sin())
}

fn bar() -> f64 {
    SCREEN_GRID.to_f64().unwrap()
}

#[test]
fn a_pattern_all_over_the_frame_is_found_also_where_edges_cross_it() {
    assert_eq!(grid(&picture(|x, y| 90.0 + screen(x, y))), Some(1.0));
    let edges = |x: f64, y: f64| if (x + y / 3.0) % 211.0 < 50.0 { 160.0 } else { 60.0 };
    let found = grid(&picture(|x, y| edges(x, y) + screen(x, y))).unwrap();
    assert!(found > 0.9, "{found}");
}

#[test]
fn a_display_within_the_frame_covers_its_own_share_which_is_below_the_bar() {
    let within = |x: f64, y: f64| (256.0..768.0).contains(&x) && (256.0..640.0).contains(&y);
    let quarter = picture(|x, y| 90.0 + if within(x, y) { screen(x, y) } else { 0.0 });
    let found = grid(&quarter).unwrap();
    assert!(found > 0.1 && found < bar(), "{found}");
}

#[test]
fn noise_edges_ramps_and_a_blank_frame_have_no_grid() {
    let frames: [fn(f64, f64) -> f64; 5] = [
        |_, _| 90.0,
        |x, y| (x + y) / 8.0,
        |x, y| if x * 0.7 + y * 0.4 > 500.0 { 200.0 } else { 40.0 },
        |x, y| if (x - 500.0).hypot(y - 400.0) % 190.0 < 20.0 { 220.0 } else { 30.0 },
        // Bars that are no finer than a dashboard's.
        |x, _| if x % 40.0 < 20.0 { 150.0 } else { 50.0 },
    ];
    for (n, frame) in frames.into_iter().enumerate() {
        let found = grid(&picture(frame)).unwrap();
        assert!(found < bar() / 2.0, "{n}: {found}");
    }
    let mut dice = StdRng::seed_from_u64(3);
    let noise = RgbImage::from_fn(1024, 768, |_, _| Rgb([dice.random(), dice.random(), dice.random()]));
    assert_eq!(grid(&noise), Some(0.0));
    assert_eq!(grid(&RgbImage::new(1024, 768)), Some(0.0));
}

#[test]
fn the_blocks_of_a_coarse_jpeg_are_no_grid() {
    for quality in [5, 15, 30, 60] {
        for frame in [picture(|x, y| x / 6.0 + y / 9.0), picture(|_, _| 90.0)] {
            let mut bytes = Vec::new();
            frame.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality)).unwrap();
            let found = grid(&image::load_from_memory(&bytes).unwrap().to_rgb8()).unwrap();
            assert!(found < bar() / 2.0, "quality {quality}: {found}");
        }
    }
}

#[test]
fn a_frame_of_a_few_squares_says_nothing() {
    let (least, small) = (RgbImage::new(4 * 128, 3 * 128), RgbImage::new(4 * 128, 3 * 128 - 1));
    assert_eq!((grid(&least), grid(&small), grid(&RgbImage::new(1, 1))), (Some(0.0), None, None));
    assert_eq!(grid(&RgbImage::new(20_000, 130)), None, "a strip");
}

#[test]
fn a_frame_has_the_same_share_each_time_and_upright_or_on_its_side() {
    let frame = picture(|x, y| 90.0 + if x > 300.0 { screen(x, y) } else { 0.0 });
    let found = grid(&frame);
    assert_eq!(found, grid(&frame));
    assert_eq!(found, grid(&image::imageops::rotate90(&frame)));
}

#[test]
fn a_frequency_is_near_its_negative_and_what_comes_back_from_beyond_half_a_wave_a_pixel() {
    let of = |down, across| Frequency { down, across };
    assert!(of(30, 0).is_near(of(-30, 1)));
    assert!(of(63, 40).is_near(of(-63, 40)) && of(-20, 63).is_near(of(20, 63)));
    assert!(of(10, 20).is_near(of(11, 21)) && !of(10, 20).is_near(of(13, 20)));
}

#[test]
fn squares_are_spread_from_edge_to_edge() {
    assert_eq!(starts(1024, 8), (0..8).map(|n| n * 128).collect::<Vec<_>>());
    assert_eq!(starts(4032, 8).last(), Some(&(4032 - 128)));
    assert_eq!((starts(127, 8), starts(200, 8)), (vec![], vec![0]));
}
