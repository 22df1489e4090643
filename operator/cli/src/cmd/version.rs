//! `version`: this program's, and the controller's if it can be found.

use serde_json::json;

use super::{API_VERSION, Context};
use crate::args::{Output, Version};
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;
use crate::model::Controller;
use crate::out::{Line, Role};

/// This program's version.
const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Runs `version`.
pub async fn run(context: &Context, args: Version) -> Result<Code, Failure> {
    let asked = if args.client {
        None
    } else {
        Some(match Cluster::connect(&context.global).await {
            Ok(cluster) => cluster.controllers().await,
            Err(failure) => Err(failure),
        })
    };
    let found: &[Controller] =
        asked.as_ref().and_then(|asked| asked.as_ref().ok()).map_or(&[], Vec::as_slice);
    let format = context.machine().filter(|format| *format != Output::Name);
    if let Some(format) = format {
        let version = json!({
            "apiVersion": API_VERSION,
            "kind": "Version",
            "client": { "version": CLIENT, "os": std::env::consts::OS, "arch": std::env::consts::ARCH },
            "controllers": found,
        });
        context.document(format, "", &version, false)?;
    } else {
        context.print(&lines(found, asked.is_some()))?;
    }
    match asked {
        // Looked for, and not found: the line says so. Not readable: that is an error.
        Some(Err(failure)) => Err(failure),
        _ => Ok(Code::Fine),
    }
}

fn lines(found: &[Controller], asked: bool) -> Vec<Line> {
    let mut lines = vec![Line::new(format!("Client:      {CLIENT}"))];
    for controller in found {
        let ready = format!("{}/{} ready", controller.ready, controller.wanted);
        let role = if controller.ready > 0 { Role::Ok } else { Role::Bad };
        let version = if controller.version.is_empty() { "-" } else { &controller.version };
        lines.push(
            Line::new(format!(
                "Controller:  {version}  {}  {}/{}  ",
                controller.image, controller.namespace, controller.name
            ))
            .add(role, ready),
        );
    }
    if asked && found.is_empty() {
        lines.push(Line::new("Controller:  ").add(Role::Attention, "not found"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_under_each_other() {
        let controller = Controller {
            namespace: "sluice-system".to_owned(),
            name: "sluice".to_owned(),
            version: "0.1.0".to_owned(),
            image: "sluice:0.1.0".to_owned(),
            ready: 2,
            wanted: 2,
        };
        let text: Vec<String> = lines(&[controller], true).iter().map(|line| line.paint(false)).collect();
        assert_eq!(text[1], "Controller:  0.1.0  sluice:0.1.0  sluice-system/sluice  2/2 ready");
        let none: Vec<String> = lines(&[], true).iter().map(|line| line.paint(false)).collect();
        assert_eq!(none[1], "Controller:  not found");
        assert_eq!(lines(&[], false).len(), 1);
    }
}
