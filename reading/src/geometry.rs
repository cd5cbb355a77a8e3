//! Rotated rectangles in a picture: convex hull, smallest rectangle, growth.

/// A point; pixels.
pub(crate) type Point = [f32; 2];

/// A rectangle that may lean: its corners clockwise from the top left, as the text in it runs.
pub(crate) type Quad = [Point; 4];

pub(crate) fn distance(a: Point, b: Point) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Length along the text; pixels.
pub(crate) fn width(quad: &Quad) -> f32 {
    distance(quad[0], quad[1])
}

/// Height across the text; pixels.
pub(crate) fn height(quad: &Quad) -> f32 {
    distance(quad[1], quad[2])
}

pub(crate) fn centre(quad: &Quad) -> Point {
    let sum = quad.iter().fold([0.0; 2], |sum, point| [sum[0] + point[0], sum[1] + point[1]]);
    [sum[0] / 4.0, sum[1] / 4.0]
}

/// Unit vectors along and across the text. A quad without length counts as upright.
pub(crate) fn axes(quad: &Quad) -> (Point, Point) {
    let length = width(quad);
    if length <= f32::EPSILON {
        return ([1.0, 0.0], [0.0, 1.0]);
    }
    let along = [(quad[1][0] - quad[0][0]) / length, (quad[1][1] - quad[0][1]) / length];
    (along, [-along[1], along[0]])
}

/// The quad with its ends moved outward along the text and its sides across it; negative moves inward. Pixels.
pub(crate) fn grow(quad: &Quad, left: f32, right: f32, across: f32) -> Quad {
    let (along, down) = axes(quad);
    let moved = |point: Point, a: f32, d: f32| {
        [point[0] + along[0] * a + down[0] * d, point[1] + along[1] * a + down[1] * d]
    };
    [
        moved(quad[0], -left, -across),
        moved(quad[1], right, -across),
        moved(quad[2], right, across),
        moved(quad[3], -left, across),
    ]
}

/// Whether two quads share a place: their centres are nearer than half their sizes added, along and across the first.
pub(crate) fn overlap(a: &Quad, b: &Quad) -> bool {
    let [along, down] = apart(a, b);
    along.abs() < (width(a) + width(b)) / 2.0 && down.abs() < (height(a) + height(b)) / 2.0
}

/// The share of their joint area that two quads have in common, the second taken to lie in the direction of the first.
pub(crate) fn shared(a: &Quad, b: &Quad) -> f32 {
    let [along, down] = apart(a, b);
    let common = |offset: f32, a: f32, b: f32| {
        ((a / 2.0).min(offset + b / 2.0) - (-a / 2.0).max(offset - b / 2.0)).max(0.0)
    };
    let both = common(along, width(a), width(b)) * common(down, height(a), height(b));
    both / (width(a) * height(a) + width(b) * height(b) - both).max(f32::EPSILON)
}

/// The way from one centre to the other, along the first box and down it.
fn apart(a: &Quad, b: &Quad) -> [f32; 2] {
    let (along, down) = axes(a);
    let (from, to) = (centre(a), centre(b));
    let apart = [to[0] - from[0], to[1] - from[1]];
    [along, down].map(|axis| apart[0] * axis[0] + apart[1] * axis[1])
}

pub(crate) fn scale(quad: &Quad, x: f32, y: f32) -> Quad {
    quad.map(|point| [point[0] * x, point[1] * y])
}

/// The convex hull by Andrew's monotone chain, counter-clockwise in axes that point right and up.
fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let turn = |a: Point, b: Point, c: Point| (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    let half = |points: &mut dyn Iterator<Item = Point>| {
        let mut hull: Vec<Point> = Vec::new();
        for point in points {
            while hull.len() >= 2 && turn(hull[hull.len() - 2], hull[hull.len() - 1], point) <= 0.0 {
                hull.pop();
            }
            hull.push(point);
        }
        hull.pop();
        hull
    };
    let mut lower = half(&mut points.iter().copied());
    lower.extend(half(&mut points.iter().rev().copied()));
    lower
}

/// The rectangle of least area around the points: one of its sides lies on a side of the hull. Its long side is taken as
/// the text's direction unless it stands nearer to upright than to level.
pub(crate) fn smallest_rectangle(points: &[Point]) -> Option<Quad> {
    let hull = hull(points.to_vec());
    let mut best: Option<(f32, Quad)> = None;
    for (index, from) in hull.iter().enumerate() {
        let to = hull[(index + 1) % hull.len()];
        let length = distance(*from, to);
        if length <= f32::EPSILON {
            continue;
        }
        let along = level([(to[0] - from[0]) / length, (to[1] - from[1]) / length]);
        let quad = spanned(&hull, along);
        let area = width(&quad) * height(&quad);
        if best.is_none_or(|(least, _)| area < least) {
            best = Some((area, quad));
        }
    }
    best.map(|(_, quad)| quad)
}

/// The one of a direction's four quarter turns that points right within 45 degrees.
fn level(along: Point) -> Point {
    let flat = if along[0].abs() >= along[1].abs() { along } else { [along[1], -along[0]] };
    if flat[0] < 0.0 { [-flat[0], -flat[1]] } else { flat }
}

/// The rectangle along a direction that just holds the points.
pub(crate) fn spanned(points: &[Point], along: Point) -> Quad {
    let down = [-along[1], along[0]];
    let (mut a, mut d) = ((f32::MAX, f32::MIN), (f32::MAX, f32::MIN));
    for point in points {
        let (pa, pd) = (point[0] * along[0] + point[1] * along[1], point[0] * down[0] + point[1] * down[1]);
        a = (a.0.min(pa), a.1.max(pa));
        d = (d.0.min(pd), d.1.max(pd));
    }
    let corner = |a: f32, d: f32| [a * along[0] + d * down[0], a * along[1] + d * down[1]];
    [corner(a.0, d.0), corner(a.1, d.0), corner(a.1, d.1), corner(a.0, d.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_rectangle_of_a_leaning_bar_leans_with_it() {
        let points = (0..100)
            .flat_map(|i| (0..10).map(move |j| [i as f32 - 0.1 * j as f32, 0.1 * i as f32 + j as f32]));
        let quad = smallest_rectangle(&points.collect::<Vec<_>>()).unwrap();
        assert!((width(&quad) - 99.0 * 1.01_f32.sqrt()).abs() < 0.01, "{quad:?}");
        assert!((height(&quad) - 9.0 * 1.01_f32.sqrt()).abs() < 0.01, "{quad:?}");
        assert!((axes(&quad).0[1] - 0.0995).abs() < 1e-3, "{quad:?}");
    }

    #[test]
    fn points_on_one_spot_have_no_rectangle_and_a_line_has_one_without_height() {
        assert!(smallest_rectangle(&[[1.0, 1.0]; 3]).is_none());
        let quad = smallest_rectangle(&[[0.0, 0.0], [4.0, 0.0]]).unwrap();
        assert_eq!((width(&quad), height(&quad)), (4.0, 0.0));
    }

    #[test]
    fn growing_moves_ends_along_and_sides_across() {
        let quad = [[0.0, 0.0], [10.0, 0.0], [10.0, 4.0], [0.0, 4.0]];
        assert_eq!(grow(&quad, 1.0, 2.0, 3.0), [[-1.0, -3.0], [12.0, -3.0], [12.0, 7.0], [-1.0, 7.0]]);
    }
}
