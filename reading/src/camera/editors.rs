//! Programs that change pictures, by what they write into the files that they save.

/// A word of what a program writes about itself, in lower case, and its name. It is no list of all there are: who wants to hide that they
/// used one takes the metadata out. Cameras and phones write names and versions of their own ("HDR+ 1.0.6", "17.4.1", "S918BXXU3"), and
/// programs that only carry, turn or shrink photos are no editors.
const EDITORS: [(&str, &str); 26] = [
    ("photoshop", "Adobe Photoshop"),
    ("lightroom", "Adobe Lightroom"),
    ("firefly", "Adobe Firefly"),
    ("gimp", "GIMP"),
    ("snapseed", "Snapseed"),
    ("picsart", "PicsArt"),
    ("pixlr", "Pixlr"),
    ("pixelmator", "Pixelmator"),
    ("affinity", "Affinity Photo"),
    ("paint.net", "Paint.NET"),
    ("paintshop", "PaintShop"),
    ("krita", "Krita"),
    ("photopea", "Photopea"),
    ("photoscape", "PhotoScape"),
    ("photodirector", "PhotoDirector"),
    ("capture one", "Capture One"),
    ("darktable", "darktable"),
    ("rawtherapee", "RawTherapee"),
    ("luminar", "Luminar"),
    ("acdsee", "ACDSee"),
    ("canva", "Canva"),
    ("fotor", "Fotor"),
    ("meitu", "Meitu"),
    ("facetune", "Facetune"),
    ("touchretouch", "TouchRetouch"),
    ("samsung photo editor", "Samsung Photo Editor"),
];
/// Characters of a program's name that are looked at.
const MOST_CHARACTERS: usize = 200;

/// The editor that has written this about itself: its word at the beginning of a word.
pub(super) fn editor(written: &[u8]) -> Option<&'static str> {
    let written = String::from_utf8_lossy(written.get(..MOST_CHARACTERS).unwrap_or(written)).to_lowercase();
    let begins = |word: &str| {
        written.match_indices(word).any(|(at, _)| {
            written
                .get(..at)
                .and_then(|before| before.chars().next_back())
                .is_none_or(|last| !last.is_alphanumeric())
        })
    };
    EDITORS.iter().find(|(word, _)| begins(word)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_is_known_by_what_it_writes_and_a_phone_is_none() {
        let editors = [
            ("Adobe Photoshop 25.4 (Windows)", "Adobe Photoshop"),
            ("Adobe Photoshop Lightroom Classic 13.2 (Macintosh)", "Adobe Photoshop"),
            ("Adobe Lightroom 9.2 (Android)", "Adobe Lightroom"),
            ("GIMP 2.10.36", "GIMP"),
            ("Snapseed 2.0", "Snapseed"),
            ("PicsArt", "PicsArt"),
            ("paint.net 5.0.13", "Paint.NET"),
        ];
        for (written, name) in editors {
            assert_eq!(editor(written.as_bytes()), Some(name), "{written}");
        }
        let phones = [
            "17.4.1",
            "HDR+ 1.0.604107352zd",
            "S918BXXU3CXD1",
            "MediaTek Camera Application",
            "Android UP1A.231005.007",
            "oriole-user 14 AP2A.240805.005",
            "Windows Phone 10.0",
            "",
        ];
        for written in phones {
            assert_eq!(editor(written.as_bytes()), None, "{written}");
        }
        assert_eq!(editor(b"EosGimpel"), None);
        assert_eq!(editor(&[0xFF, 0xFE, b'g', b'i', b'm', b'p', 0xC3]), Some("GIMP"));
        assert_eq!(editor("ä".repeat(300).as_bytes()), None);
    }
}
