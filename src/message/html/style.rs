//! The few declarations of a `style` attribute that decide whether and how text is read.

/// What one `style` attribute says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub hidden: bool,
    /// `font-size:0` hides, but templates set it on a table and undo it inside.
    pub tiny: Option<bool>,
    pub bold: Option<bool>,
    pub preformatted: bool,
}

impl Style {
    pub fn parse(style: &str) -> Style {
        let mut out = Style::default();
        for declaration in style.to_ascii_lowercase().split(';') {
            let Some((property, value)) = declaration.split_once(':') else {
                continue;
            };
            let value = value.trim().trim_end_matches("!important").trim_end();
            match property.trim() {
                "display" => out.hidden |= value == "none",
                "visibility" => out.hidden |= matches!(value, "hidden" | "collapse"),
                "mso-hide" => out.hidden |= value == "all",
                "opacity" | "max-height" | "max-width" => out.hidden |= is_zero(value),
                "font-size" => out.tiny = Some(is_zero(value)),
                "font-weight" => {
                    out.bold = match value {
                        "bold" | "bolder" | "600" | "700" | "800" | "900" => Some(true),
                        "normal" | "lighter" | "300" | "400" => Some(false),
                        _ => None,
                    };
                }
                "white-space" => out.preformatted |= value.starts_with("pre"),
                _ => {}
            }
        }
        out
    }
}

/// `0`, `0px`, `0.0em`: a number that is zero, whatever its unit.
fn is_zero(value: &str) -> bool {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    number.trim().parse::<f32>() == Ok(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides() {
        for style in [
            "display:none",
            "color:red; DISPLAY : none !important",
            "visibility:hidden",
            "mso-hide:all",
            "max-height:0px;overflow:hidden",
            "opacity:0",
            "opacity: 0.0",
        ] {
            assert!(Style::parse(style).hidden, "{style}");
        }
        for style in [
            "display:block",
            "max-height:100px",
            "opacity:0.5",
            "font-size:0",
            "",
            ":;:",
        ] {
            assert!(!Style::parse(style).hidden, "{style}");
        }
        assert_eq!(Style::parse("font-size:0px").tiny, Some(true));
        assert_eq!(Style::parse("font-size:13px").tiny, Some(false));
    }
}
