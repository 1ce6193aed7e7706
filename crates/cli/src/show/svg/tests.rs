use super::*;
use crate::show::example;

#[test]
fn a_picture_has_a_box_for_each_stage_and_two_lines_for_each_arrow() {
    let picture = svg(&example::map());
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("<rect class=\"stage").count(), 3);
    assert_eq!(picture.matches("<line").count(), 4);
    assert_eq!(picture.matches("<line class=\"lost\"").count(), 2);
    for text in ["guest web", "812k frames/s", "60 drops/s"] {
        assert!(picture.contains(text), "{text}: {picture}");
    }
}

#[test]
fn names_cannot_break_out_of_it() {
    let mut map = example::map();
    map.paths[0].name = "<script>&\"\u{1}\u{ffff}".into();
    let picture = svg(&map);
    assert!(picture.contains("&lt;script&gt;&amp;&quot;??"), "{picture}");
    assert!(!picture.contains("<script"));
}

#[test]
fn a_long_name_makes_the_picture_as_wide() {
    let mut map = example::map();
    map.paths[0].stages.truncate(1);
    map.paths[0].arrows.clear();
    map.paths[0].name = "n".repeat(127);
    let picture = svg(&map);
    let (_, width) = picture.split_once("width=\"").unwrap();
    let width: f64 = width.split_once('"').unwrap().0.parse().unwrap();
    assert!(width > 127.0 * 9.0, "{width}");
}
