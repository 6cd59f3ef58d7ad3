/// Longest text that is sent for a person to read.
const TEXT_MAX: usize = 1024;

/// A text for a person, cut where it gets too long: strings of old versions hold less than 32 KiB.
pub fn bounded(text: impl Into<String>) -> String {
    let mut text = text.into();
    if text.len() > TEXT_MAX {
        let at = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(at);
    }
    text
}
