//! `[alert]`: templates whose placeholders exist, tiles whose names SIGNL4 leaves alone.

use super::Compiler;
use crate::alert::{Scenario, TEXT_NAMES, TITLE_NAMES};
use crate::diagnostic::{Diagnostic, suggestion};
use crate::document::quoted;
use crate::rules::ruleset::AlertTemplates;
use crate::rules::template::Template;
use crate::rules::written::{self, Text};

/// What a template may name besides the file's own fields.
const BUILT_IN: [&str; 14] = [
    "source",
    "rule",
    "event",
    "subject",
    "from",
    "text",
    "own_text",
    "customer_text",
    "description",
    "attachments",
    "reverse_path",
    "forward_path",
    "forwarded_by",
    "original_from",
];

impl Compiler<'_> {
    /// The templates of `base` with those of `written` in their place.
    pub(super) fn alert(
        &mut self,
        written: &written::Alert,
        key: &str,
        base: &AlertTemplates,
    ) -> AlertTemplates {
        let mut one = |text: &Option<Text>, name: &str, base: &Option<Template>| {
            let text = text.as_ref();
            let template = text.and_then(|text| self.template(text, &format!("{key}.{name}")));
            template.or_else(|| base.clone())
        };
        let mut alert = AlertTemplates {
            external_id: one(&written.external_id, "external_id", &base.external_id),
            title: one(&written.title, "title", &base.title),
            message: one(&written.message, "message", &base.message),
            service: one(&written.service, "service", &base.service),
            location: one(&written.location, "location", &base.location),
            scenario: one(&written.scenario, "scenario", &base.scenario),
            source_system: one(&written.source_system, "source_system", &base.source_system),
            filtering: written.filtering.or(base.filtering),
            parameters: base.parameters.clone(),
        };
        if let Some(text) = &written.scenario {
            self.scenario(text, alert.scenario.as_ref(), key);
        }
        if let Some(text) = &written.location {
            self.location(text, alert.location.as_ref(), key);
        }
        for (name, text) in &written.parameters {
            let key = format!("{key}.parameters");
            self.parameter_name(name, &key);
            let key = format!("{key}.{}", name.get_ref());
            if let Some(template) = self.template(text, &key) {
                alert.parameters.insert(name.get_ref().clone(), template);
            }
        }
        alert
    }

    fn template(&mut self, text: &Text, key: &str) -> Option<Template> {
        let (template, places) = match Template::parse(text.get_ref()) {
            Ok(parsed) => parsed,
            Err((range, message)) => {
                let span = quoted::span_of(self.file, text.span(), range);
                let problem = Diagnostic::at(self.file, span, message).key(key);
                self.problems.push(problem);
                return None;
            }
        };
        for (range, name) in places {
            let known = self.names.contains(&name) || BUILT_IN.contains(&name.as_str());
            if self.complete && !known {
                let span = quoted::span_of(self.file, text.span(), range);
                let message =
                    format!("`{{{name}}}` is used here, but no field `{name}` is defined");
                let problem = Diagnostic::at(self.file, span, message).key(key);
                self.problems
                    .push(problem.hint(self.meant(&name, &BUILT_IN)));
            }
        }
        Some(template)
    }

    fn scenario(&mut self, text: &Text, template: Option<&Template>, key: &str) {
        if template.is_some_and(Template::is_fixed) && Scenario::parse(text.get_ref()).is_none() {
            let names = Scenario::ALL.map(Scenario::as_str);
            let hint = match suggestion(text.get_ref(), names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("SIGNL4 knows {}", names.join(", ")),
            };
            let message = format!("SIGNL4 has no alerting scenario `{}`", text.get_ref());
            self.problem(text, &format!("{key}.scenario"), message).hint = Some(hint);
        }
    }

    /// A place on a map (FORMATS.md 1.3): anything else, SIGNL4 does not show.
    fn location(&mut self, text: &Text, template: Option<&Template>, key: &str) {
        let within = |text: &str, most: f64| {
            let degrees = text.trim().parse::<f64>();
            degrees.is_ok_and(|degrees| degrees.abs() <= most)
        };
        let is_place = |text: &str| {
            let parts = text.split_once(',');
            parts.is_some_and(|(north, east)| within(north, 90.0) && within(east, 180.0))
        };
        if template.is_some_and(Template::is_fixed) && !is_place(text.get_ref()) {
            let message = format!("`{}` is not latitude and longitude", text.get_ref());
            self.problem(text, &format!("{key}.location"), message).hint =
                Some("for example \"52.5200,13.4050\"".to_owned());
        }
    }

    fn parameter_name(&mut self, name: &Text, key: &str) {
        let text = name.get_ref();
        let is = |other: &str| other.eq_ignore_ascii_case(text);
        let hint = if TITLE_NAMES.iter().any(|other| is(other)) {
            "SIGNL4 reads a parameter of this name as the title: use alert.title, or another name"
        } else if TEXT_NAMES.iter().any(|other| is(other)) {
            "SIGNL4 reads a parameter of this name as the text: use alert.message, or another name"
        } else if text.to_lowercase().starts_with("x-s4-") {
            "SIGNL4's own parameters have keys of their own: external_id, service, location, scenario, filtering, source_system"
        } else {
            return;
        };
        let message = format!("`{text}` cannot be the name of a tile");
        self.problem(name, key, message).hint = Some(hint.to_owned());
    }
}
