//! The two text forms of the metrics. Pure.

/// OpenMetrics 1.0, as the library writes it.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prometheus' own text format, for whoever does not ask for OpenMetrics.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same numbers in the classic format: a counter's family has its `_total` in the name, and there
/// are no units, exemplars and end mark.
pub fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let lines: Vec<&str> = open_metrics.lines().collect();
    let counters: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let infos: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" info"))
        .collect();
    for line in lines {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some((mark, (name, rest))) = line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(mark, rest)| Some((mark, rest.split_once(' ')?)))
        else {
            let sample = line.split_once(" # {").map_or(line, |(sample, _)| sample);
            text.push_str(sample);
            text.push('\n');
            continue;
        };
        let (suffix, rest) = if counters.contains(&name) {
            ("_total", rest)
        } else if infos.contains(&name) && mark == "TYPE" {
            ("_info", "gauge")
        } else if infos.contains(&name) {
            ("_info", rest)
        } else {
            ("", rest)
        };
        text.push_str(&format!("# {mark} {name}{suffix} {rest}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_form() {
        let open_metrics = "# HELP m_mails Mails.\n# TYPE m_mails counter\nm_mails_total{a=\"# x\"} 1\n\
            # HELP m_s_seconds How long.\n# TYPE m_s_seconds histogram\n# UNIT m_s_seconds seconds\n\
            m_s_seconds_bucket{le=\"1.0\"} 1 # {mail=\"7\"} 0.5\n\
            # HELP m_build It.\n# TYPE m_build info\nm_build_info{version=\"1\"} 1\n# EOF\n";
        let expected = "# HELP m_mails_total Mails.\n# TYPE m_mails_total counter\nm_mails_total{a=\"# x\"} 1\n\
            # HELP m_s_seconds How long.\n# TYPE m_s_seconds histogram\n\
            m_s_seconds_bucket{le=\"1.0\"} 1\n\
            # HELP m_build_info It.\n# TYPE m_build_info gauge\nm_build_info{version=\"1\"} 1\n";
        assert_eq!(classic(open_metrics), expected);
    }
}
