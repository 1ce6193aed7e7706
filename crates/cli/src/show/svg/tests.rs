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
    map.paths[0].name = "<script>&\"\u{1}".into();
    let picture = svg(&map);
    assert!(picture.contains("&lt;script&gt;&amp;&quot;?"), "{picture}");
    assert!(!picture.contains("<script"));
}

#[test]
fn long_lines_are_broken_at_words_or_else_within() {
    assert_eq!(
        wrap("worker-0 on CPU 3, 98.7 %, and so on"),
        ["worker-0 on CPU 3, 98.7 %, and", "so on"]
    );
    assert_eq!(
        wrap(&"x".repeat(65)),
        ["x".repeat(30), "x".repeat(30), "x".repeat(5)]
    );
    assert_eq!(wrap(""), [""]);
}
