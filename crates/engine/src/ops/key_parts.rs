//! What the key of an operation is made of, part by part: to tell a person which part is another than before.
//!
//! The parts are taken from the very message that [`super::keys`] makes the key of. A part that has no name of
//! its own changes the key all the same; then all that can be told is that the step does something else.

use prost::Message as _;
use slipway_model::Digest;
use slipway_model::llb::{Vertex, pb};
use slipway_model::progress::KeyPart;

use super::keys::keyed_exec;
use crate::sources::local::is_of_one_run;

/// Lists the parts of what a vertex does.
pub(crate) fn key_parts(vertex: &Vertex) -> Vec<KeyPart> {
    let mut parts = Parts::default();
    match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => {
            parts.add(
                "the platform",
                vertex.platform().map(|platform| platform.to_string()).unwrap_or_default(),
            );
            parts.exec(keyed_exec(exec));
        }
        Some(pb::op::Op::File(file)) => file.actions.iter().for_each(|action| parts.file(action)),
        Some(pb::op::Op::Source(source)) => {
            parts.add("the source", &source.identifier);
            for (name, value) in source.attrs.iter().filter(|(name, _)| !is_of_one_run(name)) {
                parts.add(format!("the attribute `{name}`"), value);
            }
        }
        _ => {}
    }
    parts.0
}

#[derive(Default)]
struct Parts(Vec<KeyPart>);

impl Parts {
    fn add(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) {
        self.0.push(KeyPart { name: name.into(), digest: Digest::of(value) });
    }

    fn exec(&mut self, exec: pb::ExecOp) {
        let meta = exec.meta.unwrap_or_default();
        self.add("the command", meta.args.join("\0"));
        for variable in &meta.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            self.add(format!("the environment variable `{name}`"), value);
        }
        self.add("the working directory", &meta.cwd);
        self.add("the user", &meta.user);
        for mount in &exec.mounts {
            // Which of the inputs it is shows with the inputs.
            let mount = pb::Mount { input: 0, output: 0, ..mount.clone() };
            self.add(format!("the mount at `{}`", mount.dest), mount.encode_to_vec());
        }
        self.add("the network", exec.network.to_le_bytes());
        self.add("the security mode", exec.security.to_le_bytes());
        let secrets: Vec<u8> = exec.secretenv.iter().flat_map(prost::Message::encode_to_vec).collect();
        self.add("the secrets in the environment", secrets);
        let rest =
            pb::Meta { args: Vec::new(), env: Vec::new(), cwd: String::new(), user: String::new(), ..meta };
        self.add("the limits or hosts of the step", rest.encode_to_vec());
    }

    fn file(&mut self, action: &pb::FileAction) {
        use pb::file_action::Action;
        match &action.action {
            Some(Action::Copy(copy)) => {
                self.add("the place of the copy", &copy.dest);
                let rest = pb::FileActionCopy { src: String::new(), dest: String::new(), ..copy.clone() };
                self.add("an option of the copy", rest.encode_to_vec());
            }
            Some(Action::Mkfile(file)) => {
                self.add("the content of the file", &file.data);
                let rest = pb::FileActionMkFile { data: Vec::new(), ..file.clone() };
                self.add("the place, mode or owner of the file", rest.encode_to_vec());
            }
            Some(Action::Mkdir(directory)) => self.add("the directory", directory.encode_to_vec()),
            Some(Action::Rm(removed)) => self.add("what is removed", removed.encode_to_vec()),
            Some(Action::Symlink(link)) => self.add("the link", link.encode_to_vec()),
            None => {}
        }
    }
}
