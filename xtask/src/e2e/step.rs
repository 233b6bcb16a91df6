//! The steps of a scenario on a cluster: calls of kubectl and their expected output, as plain values.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// Values that earlier steps have read, by name. They replace `{name}` in the arguments of later steps.
pub(super) type Known = BTreeMap<&'static str, String>;

/// A call of kubectl in the scenarios' namespace.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// Arguments without the namespace and the kubeconfig.
    pub(super) words: Vec<String>,
    pub(super) input: Option<String>,
    pub(super) expected: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any output of a successful call.
    Success,
    /// Any output, which is kept under this name.
    Kept(&'static str),
    /// Lines: each is one of these names, and every name occurs.
    All(&'static str),
    /// Lines: each is one of these names.
    Some(&'static str),
    /// Lines: all are the same one of these names.
    One(&'static str),
    Exactly(&'static str),
}

pub(super) fn apply(manifest: &str) -> Step {
    Step {
        words: ["apply", "--filename", "-"].map(str::to_owned).to_vec(),
        input: Some(manifest.to_owned()),
        expected: Expected::Success,
    }
}

/// A call with arguments separated by blanks.
pub(super) fn kubectl(words: &str, expected: Expected) -> Step {
    Step { words: words.split(' ').map(str::to_owned).collect(), input: None, expected }
}

pub(super) fn visitor(script: &str, expected: Expected) -> Step {
    let words = ["exec", "visitor", "--", "sh", "-c", script].map(str::to_owned).to_vec();
    Step { words, input: None, expected }
}

impl Step {
    pub(super) fn with(&self, known: &Known) -> Result<Self> {
        let fill = |text: &String| {
            known.iter().fold(text.clone(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
        };
        let filled =
            Self { words: self.words.iter().map(fill).collect(), input: self.input.as_ref().map(fill), ..self.clone() };
        let open = |text: &String| unknown(text).map(str::to_owned);
        let unknown = filled.words.iter().chain(&filled.input).find_map(open);
        ensure!(unknown.is_none(), "no earlier step has set {unknown:?}");
        Ok(filled)
    }

    /// Compares the output with the expected one, and keeps it if the step says so.
    pub(super) fn judge(&self, output: &str, known: &mut Known) -> Result<()> {
        let output = output.trim();
        let names = |name: &'static str| -> Result<Vec<String>> {
            let names = known.get(name).with_context(|| format!("no earlier step has set {name}"))?;
            Ok(names.split_whitespace().map(str::to_owned).collect())
        };
        let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let all_of = |names: &[String]| {
            ensure!(!lines.is_empty(), "no pod answers");
            ensure!(
                lines.iter().all(|line| names.iter().any(|name| name == line)),
                "expected answers of {names:?}, \
                                                                                     and {lines:?} answer"
            );
            Ok(())
        };
        match self.expected {
            Expected::Success => Ok(()),
            Expected::Kept(name) => {
                ensure!(!output.is_empty(), "there is no {name} yet");
                known.insert(name, output.to_owned());
                Ok(())
            }
            Expected::Exactly(wanted) => {
                ensure!(output == wanted, "expected {wanted:?}, and the output is {output:?}");
                Ok(())
            }
            Expected::Some(name) => all_of(&names(name)?),
            Expected::One(name) => {
                all_of(&names(name)?)?;
                ensure!(lines.iter().all(|line| *line == lines[0]), "expected one pod to answer, and {lines:?} answer");
                Ok(())
            }
            Expected::All(name) => {
                let names = names(name)?;
                all_of(&names)?;
                let silent: Vec<&String> = names.iter().filter(|name| !lines.contains(&name.as_str())).collect();
                ensure!(silent.is_empty(), "{silent:?} do not answer, and {lines:?} do");
                Ok(())
            }
        }
    }
}

/// The first `{name}` in a text. Braces of JSONPath and YAML contain other characters than lower-case letters.
fn unknown(text: &str) -> Option<&str> {
    text.split('{').skip(1).find_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        (!name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase())).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known::from([("pods", "web-1 web-2".to_owned()), ("ip", "10.96.0.7".to_owned())])
    }

    fn judge(expected: Expected, output: &str) -> Result<(), String> {
        let step = kubectl("get pods", expected);
        step.judge(output, &mut known()).map_err(|error| error.to_string())
    }

    #[test]
    fn known_values_replace_names_in_steps() {
        let step = visitor("curl {ip}; echo ${ip}", Expected::Success).with(&known()).unwrap();
        assert_eq!(step.words.last().unwrap(), "curl 10.96.0.7; echo $10.96.0.7");
        assert!(visitor("curl {port}", Expected::Success).with(&known()).is_err());
        assert!(kubectl("get svc -o jsonpath={.spec.clusterIP}", Expected::Success).with(&known()).is_ok());
    }

    #[test]
    fn step_output_is_judged_by_the_names_in_it() {
        assert_eq!(judge(Expected::All("pods"), "web-2\nweb-1\nweb-2\n"), Ok(()));
        assert!(judge(Expected::All("pods"), "web-2\nweb-2\n").unwrap_err().contains("web-1"));
        assert!(judge(Expected::All("pods"), "web-1\nweb-2\nother\n").is_err());
        assert!(judge(Expected::All("pods"), "").is_err());
        assert_eq!(judge(Expected::Some("pods"), "web-2\n"), Ok(()));
        assert!(judge(Expected::Some("pods"), "").is_err());
        assert_eq!(judge(Expected::One("pods"), "web-2\nweb-2\n"), Ok(()));
        assert!(judge(Expected::One("pods"), "web-2\nweb-1\n").is_err());
        assert_eq!(judge(Expected::Exactly("7"), "7\n"), Ok(()));
        assert!(judge(Expected::Exactly("7"), "28\n").is_err());
        assert_eq!(judge(Expected::Exactly(""), "\n"), Ok(()));
    }

    #[test]
    fn kept_output_is_known_to_later_steps() {
        let mut known = known();
        kubectl("get svc", Expected::Kept("port")).judge("30080\n", &mut known).unwrap();
        assert_eq!(known["port"], "30080");
        assert!(kubectl("get svc", Expected::Kept("port")).judge("\n", &mut known).is_err());
    }
}
