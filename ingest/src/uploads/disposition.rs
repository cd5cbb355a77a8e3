//! A form field's `Content-Disposition` (RFC 7578 section 4.2, RFC 6266, RFC 8187): its name and its file's name.
//!
//! multer looks for `name=` anywhere in the header, a file's name included, and knows neither `filename*` nor parameters in another case.

use percent_encoding::percent_decode_str;

/// What the header names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disposition {
    pub(crate) name: Option<String>,
    pub(crate) file_name: Option<String>,
}

impl Disposition {
    /// Reads a header's value. `name*` and `filename*` win over their plain forms, wherever they stand; of two of one kind the first
    /// counts. Parameters that do not read are none.
    pub(crate) fn parse(header: &[u8]) -> Self {
        // Browsers write UTF-8 as it is; what is none is shown as such.
        let header = String::from_utf8_lossy(header);
        let (mut plain, mut extended) = (Self::default(), Self::default());
        for (key, value) in parameters(&header) {
            let (key, is_extended) = match key.strip_suffix('*') {
                Some(key) => (key, true),
                None => (key.as_str(), false),
            };
            let form = if is_extended { &mut extended } else { &mut plain };
            let slot = match key {
                "name" => &mut form.name,
                "filename" => &mut form.file_name,
                _ => continue,
            };
            if slot.is_none() {
                *slot = if is_extended { decoded(&value) } else { Some(value) };
            }
        }
        Self { name: extended.name.or(plain.name), file_name: extended.file_name.or(plain.file_name) }
    }
}

/// The parameters behind the first semicolon: lower-case names, and values without their quotes.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        // What has no value is passed over: `; secret; name=…`.
        let name = name.rsplit(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, tail) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), tail)
            }
        };
        found.push((name, value));
        rest = tail;
    }
    found
}

/// A quoted value up to its end, and what stands behind it. Browsers write a quote inside a name as `%22` (HTML standard, multipart form
/// data) and older ones as `\"`; a backslash before anything else is one of a Windows path.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let behind = &text[at + 1..];
                return (value, behind.split_once(';').map_or("", |(_, tail)| tail));
            }
            '\\' if characters.peek().is_some_and(|(_, next)| *next == '"') => {
                value.push('"');
                characters.next();
            }
            _ => value.push(character),
        }
    }
    (value, "")
}

/// `UTF-8'en'na%C3%AFve`, as RFC 8187 has it. Of ISO 8859-1 only what is ASCII too is read: nothing writes it any more.
fn decoded(value: &str) -> Option<String> {
    let mut pieces = value.splitn(3, '\'');
    let (charset, _language, text) = (pieces.next()?, pieces.next()?, pieces.next()?);
    if !["utf-8", "iso-8859-1"].contains(&charset.to_ascii_lowercase().as_str()) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> (Option<String>, Option<String>) {
        let Disposition { name, file_name } = Disposition::parse(header.as_bytes());
        (name, file_name)
    }

    fn both(name: &str, file: &str) -> (Option<String>, Option<String>) {
        (Some(name.to_owned()), Some(file.to_owned()))
    }

    #[test]
    fn names_are_read_in_any_case_order_and_form() {
        for header in [
            "form-data; name=\"photo\"; filename=\"a.jpg\"",
            "form-data; filename=\"a.jpg\"; name=\"photo\"",
            "Form-Data; NAME=photo; FileName=a.jpg",
            "form-data;name = \"photo\" ;filename= a.jpg ",
            "form-data; filename*=UTF-8''a.jpg; name*=utf-8'en'photo",
            "form-data; filename=\"other.jpg\"; filename*=UTF-8''a.jpg; name=photo",
            "form-data; filename*=UTF-8''a.jpg; filename=\"other.jpg\"; name=photo",
            "form-data; secret; name=photo; name=second; filename=a.jpg",
        ] {
            assert_eq!(parsed(header), both("photo", "a.jpg"), "{header}");
        }
    }

    #[test]
    fn a_name_inside_a_files_name_is_a_piece_of_the_files_name() {
        let header = "form-data; filename=\"my; name=unit.jpg\"; name=\"photo\"";
        assert_eq!(parsed(header), both("photo", "my; name=unit.jpg"));
        assert_eq!(parsed("form-data; filename=\"a\\\"; name=b\"; name=photo"), both("photo", "a\"; name=b"));
        assert_eq!(
            parsed("form-data; filename=\"C:\\photos\\a.jpg\"; name=x").1,
            Some("C:\\photos\\a.jpg".into())
        );
    }

    #[test]
    fn a_file_name_of_any_script_is_read_in_both_forms() {
        let extended = "form-data; name=photo; filename*=UTF-8''%D0%BF%D1%80%D0%BE%D0%B1%D0%B5%D0%B3.jpg";
        assert_eq!(parsed(extended), both("photo", "пробег.jpg"));
        assert_eq!(parsed("form-data; name=photo; filename=\"пробег.jpg\""), both("photo", "пробег.jpg"));
    }

    #[test]
    fn what_does_not_read_names_nothing() {
        for header in
            ["", "form-data", "form-data; name", "form-data; name*=photo", "form-data; name*=x'y'%ff"]
        {
            assert_eq!(parsed(header), (None, None), "{header}");
        }
    }
}
