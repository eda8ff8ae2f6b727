//! The scripts that make shells ask for completions.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Root;

/// Bash splits words at `=` and `:` too, so the words are taken from the line itself.
const BASH: &str = r#"_slipway() {
    local line="${COMP_LINE:0:COMP_POINT}" words=() answer reply directive=0
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local typed="${words[${#words[@]}-1]}" current="${COMP_WORDS[COMP_CWORD]}"
    [[ $current == [=:] ]] && current=""
    local known="${typed%"$current"}"
    COMPREPLY=()
    answer=$("${words[0]}" __completeNoDesc "${words[@]:1}" 2>/dev/null) || return 0
    while IFS= read -r reply; do
        case $reply in
            :*) directive="${reply#:}" ;;
            *) COMPREPLY+=("${reply#"$known"}") ;;
        esac
    done <<<"$answer"
    if ((${#COMPREPLY[@]} == 0 && !(directive & 4))); then
        compopt -o default 2>/dev/null
    fi
}
complete -F _slipway slipway
"#;

const ZSH: &str = r#"#compdef slipway
_slipway() {
    local -a answer described
    local reply directive=0
    answer=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for reply in $answer; do
        if [[ $reply == :* ]]; then
            directive=${reply#:}
        else
            described+=("${${reply//:/\\:}/$'\t'/:}")
        fi
    done
    if (( $#described )); then
        _describe -V slipway described
    elif (( !(directive & 4) )); then
        _files
    fi
}
if [[ $funcstack[1] == _slipway ]]; then
    _slipway "$@"
else
    compdef _slipway slipway
fi
"#;

const FISH: &str = r#"function __slipway_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l found 0
    set -l directive 0
    for reply in ($words[1] __complete $words[2..-1] "$typed" 2>/dev/null)
        if string match -q ':*' -- $reply
            set directive (string sub -s 2 -- $reply)
        else
            set found 1
            echo $reply
        end
    end
    if test $found = 0 -a $directive = 0
        __fish_complete_path $typed
    end
end
complete -c slipway -f -a '(__slipway_complete)'
"#;

/// Returns the script for a shell. Those of shells that cannot ask know commands and flags only.
pub(crate) fn script(shell: Shell) -> Vec<u8> {
    match shell {
        Shell::Bash => BASH.into(),
        Shell::Zsh => ZSH.into(),
        Shell::Fish => FISH.into(),
        other => {
            let mut script = Vec::new();
            clap_complete::generate(other, &mut Root::command(), "slipway", &mut script);
            script
        }
    }
}
