"""What the Makefile does with what it is given: names, paths, switches, the shell's variables."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from shlex import quote

import pytest

ROOT = Path(__file__).parents[1]
ODD = [
    "my photos",
    "(a) & b",
    "semi;colon",
    'quote\'s "here"',
    "pipe|less<more>",
    "$HOME `id` $(id)",
    "back\\slash",
    "st*r?[x]",
    "50%",
    "a=b:c,d#e",
    "Café 日本",
    "two\nlines",
    "tab\there",
    "-dash",
    ".hidden",
    "x" * 200,
]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # As from a shell, not as part of a `make test` around it.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def printed_words(target: str, *arguments: str, bin_folder: Path) -> list[list[str]]:
    """What `python` is really given when the shell has read the recipe."""
    python = bin_folder / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@" END >> "$KENNEL_WORDS"\n')
    python.chmod(0o755)
    ready = bin_folder / "venv/ready"
    ready.touch()
    os.utime(ready, (2**32, 2**32))  # newer than the lock
    words = bin_folder / "words"
    ran = make(target, f"VENV={bin_folder / 'venv'}", *arguments, KENNEL_WORDS=str(words))
    assert words.exists(), ran.stdout + ran.stderr
    calls = [call.split("\0")[:-1] for call in words.read_bytes().decode().split("END\0")]
    return [call for call in calls if call and call[1] != "trainer.done"]


@pytest.mark.parametrize("name", ODD)
def test_a_dataset_arrives_as_it_was_typed(name, tmp_path):
    (tmp_path / name).mkdir()
    calls = printed_words(
        "data", f"DATASET={tmp_path / name}", f"OUT={tmp_path / 'out'}", bin_folder=tmp_path
    )
    sources = next(call for call in calls if call[:2] == ["-m", "trainer.sources"])
    assert sources[2] == str(tmp_path / name)
    output = Path(sources[sources.index("--output") + 1])
    assert output.parent == tmp_path / "out/data"
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,75}", output.name)


def test_the_names_of_two_data_sets_differ_where_only_odd_characters_do(tmp_path):
    names = set()
    for name in ("a b", "a&b", "a-b", "日本", "中国"):
        bin_folder = tmp_path / name
        calls = printed_words(
            "data", f"DATASET=/{name}", f"OUT={tmp_path / 'out'}", bin_folder=bin_folder
        )
        names.add(calls[0][calls[0].index("--output") + 1])
    assert len(names) == 5


def test_a_plain_folder_keeps_its_name(tmp_path):
    (tmp_path / "Flowers_5.v2").mkdir()
    calls = printed_words(
        "data", f"DATASET={tmp_path}/Flowers_5.v2/", f"OUT={tmp_path}/o", bin_folder=tmp_path
    )
    assert calls[0][calls[0].index("--output") + 1] == f"{tmp_path}/o/data/Flowers_5.v2"


@pytest.mark.parametrize(
    ("variable", "flag"), [("URL", "--url"), ("MODEL", "--model"), ("FILE", "--file")]
)
@pytest.mark.parametrize("value", ["https://x.org/a?$name$&b=(1);'c'", "a  b.jpg", "50%.jpg"])
def test_a_value_arrives_as_it_was_typed(variable, flag, value, tmp_path):
    path = tmp_path / value.replace("/", "_")
    path.touch()
    given = value if variable == "URL" else str(path)
    target = {"URL": "invoke", "FILE": "invoke", "MODEL": "preflight"}[variable]
    calls = printed_words(
        target, f"{variable}={given}", f"OUT={tmp_path / 'out'}", bin_folder=tmp_path / "bin"
    )
    assert f"{flag}={given}" in calls[-1] or calls[-1][calls[-1].index(flag) + 1] == given


def test_several_files_and_patterns_are_as_many_words(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    calls = printed_words(
        "invoke", f"FILE={tmp_path}/1.jpg {tmp_path}/?.jpg", bin_folder=tmp_path / "bin"
    )
    assert calls[-1][-3:] == [f"{tmp_path}/1.jpg", f"{tmp_path}/1.jpg", f"{tmp_path}/2.jpg"]


def test_more_flags_do_not_take_those_of_the_digits_away(tmp_path):
    printed = make("--dry-run", "tune", "FLAGS=--seed 7", f"OUT={tmp_path}").stdout
    (line,) = (line for line in printed.splitlines() if "trainer.tune" in line)
    assert "--hflip 0 --min-scale 0.8 --seed 7" in line


def test_more_flags_are_words_as_the_shell_reads_them(tmp_path):
    flags = "--note 'a  $b' --user \"$WHO\""
    calls = printed_words(
        "tune", f"FLAGS={flags}", f"OUT={tmp_path / 'out'}", "WHO=me", bin_folder=tmp_path / "bin"
    )
    (tune,) = (call for call in calls if call[1] == "trainer.tune")
    assert tune[-4:] == ["--note", "a  $b", "--user", "me"]


@pytest.mark.parametrize(
    ("target", "variable"),
    [
        ("attach", "JOB"),
        ("logs", "SINCE"),
        ("unlock STACK=serving", "LOCK"),
        ("outputs", "STACK"),
        ("preflight", "INSTANCE_TYPE"),
        ("status", "ENV"),
    ],
)
def test_make_runs_nothing_that_a_value_says(target, variable, tmp_path):
    value = f"$(shell touch {tmp_path}/ran)$x"
    words = (*target.split(), f"{variable}={value}", f"OUT={tmp_path / 'out'}")
    calls = printed_words(*words, bin_folder=tmp_path / "bin")
    assert any(value in (word, word.partition("=")[2]) for call in calls for word in call)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("variable", ["BACKBONE", "UNFREEZE", "STACK", "ENGINE", "BENCH"])
def test_nor_what_the_shell_exports_says(variable, tmp_path):
    make("--dry-run", "plan", **{variable: f"$(shell touch {tmp_path}/ran)"})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../x", "a b", "a\nb", "a\tb", "a#b", "a:b", "", "resnet5"])
def test_a_backbone_is_one_name(name, tmp_path):
    ran = make("tune", f"BACKBONE={name}", f"OUT={tmp_path / 'out'}")
    assert ran.returncode == 2
    assert re.fullmatch(r"Makefile:\d+: \*\*\* BACKBONE=.*  Stop.\n", ran.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BASH_ENV", "{folder}/start"),
        ("BASH_FUNC_printf%%", "() { echo noise; }"),
        ("BASH_FUNC_basename%%", "() { echo noise; }"),
        ("CDPATH", "/:/tmp"),
        ("SHELLOPTS", "noglob:xtrace"),
        ("GLOBIGNORE", "*"),
        ("MAKELEVEL", "3"),
    ],
)
def test_what_the_shell_exports_to_programs_changes_nothing(variable, value, tmp_path, monkeypatch):
    (tmp_path / "start").write_text("echo noise; set -f; cd /\n")
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    monkeypatch.setenv(variable, value.replace("{folder}", str(tmp_path)))
    folder = tmp_path / "bin"
    calls = printed_words(
        "invoke", f"FILE={tmp_path}/?.jpg", f"OUT={tmp_path}/o", bin_folder=folder
    )
    assert calls[-1][-2:] == [f"{tmp_path}/1.jpg", f"{tmp_path}/2.jpg"]
    named = make("--dry-run", "data", "DATASET=Flowers", f"OUT={tmp_path}/o")
    assert f"{tmp_path}/o/data/Flowers" in named.stdout
    assert "noise" not in named.stdout


def test_another_python_of_the_shell_s_is_not_heeded(tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    (tmp_path / "venv/ready").touch()
    os.utime(tmp_path / "venv/ready", (2**32, 2**32))
    names = ("EXECUTABLE", "HOME", "IOENCODING", "PATH", "PLATLIBDIR")
    foreign = {f"PYTHON{name}": "/nowhere" for name in names}
    given = ("status", f"VENV={tmp_path}/venv", f"OUT={tmp_path}/o")
    assert "=/nowhere" not in make(*given, **foreign).stdout
    assert "PYTHONPATH=/mine\n" in make(*given, "PYTHONPATH=/mine", **foreign).stdout


def test_uv_is_found_for_a_folder_that_the_environment_was_not_made_with(tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    uv = python.with_name("uv")
    uv.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/calls\n')
    uv.chmod(0o755)
    (tmp_path / "o/checkov").mkdir(parents=True)
    (tmp_path / "venv/ready").touch()
    os.utime(tmp_path / "venv/ready", (2**32, 2**32))
    without_uv = [
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not shutil.which("uv", path=folder)
    ]
    ran = make(
        *(f"{tmp_path}/o/checkov/ready", f"VENV={tmp_path}/venv", f"OUT={tmp_path}/o"),
        PATH=os.pathsep.join(without_uv),
    )
    assert ran.returncode == 0, ran.stderr
    assert set((tmp_path / "calls").read_text().split()) == {"venv", "pip"}


@pytest.mark.parametrize("variable", ["MAKEFLAGS", "GNUMAKEFLAGS"])
def test_targets_are_made_in_the_order_of_their_names(variable, tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    # The first one ends only when the others had their time to begin.
    python.write_text(
        f"""#!/bin/bash
echo "begin $2" >> {tmp_path}/order
test "$2" != localaws.server || while test $((++turns)) -lt 20000; do :; done
echo "end $2" >> {tmp_path}/order
"""
    )
    python.chmod(0o755)
    (python.parents[1] / "ready").touch()
    os.utime(python.parents[1] / "ready", (2**32, 2**32))
    venv = f"VENV={tmp_path}/venv"
    make("local-up", "bootstrap", venv, f"OUT={tmp_path}/o", **{variable: "-j8"})
    lines = (tmp_path / "order").read_text().split("\n")
    assert lines[:2] == ["begin localaws.server", "end localaws.server"]
    assert lines.index("begin terraform.cli") > lines.index("end trainer.done")


def test_a_makefile_of_another_folder_says_how_it_is_called(tmp_path):
    ran = make("-f", str(ROOT / "Makefile"), "-C", str(tmp_path), "lambda", "OUT=x")
    assert ran.returncode == 2
    assert f"say `make -C {ROOT}/`, not -f" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_no_flag(tmp_path):
    words = ("FILE=-x.jpg", f"OUT={tmp_path / 'out'}")
    calls = printed_words("invoke", *words, bin_folder=tmp_path / "bin")
    assert calls[-1][-2:] == ["--file", "./-x.jpg"]
    for goal, variable, end in (
        ("invoke", "URL", ["--url=-x"]),
        ("stop", "JOB", ["--", "-x"]),
        ("attach", "JOB", ["--", "-x"]),
    ):
        words = (f"{variable}=-x", f"OUT={tmp_path / 'out'}")
        calls = printed_words(goal, *words, bin_folder=tmp_path / goal)
        assert calls[-1][-len(end) :] == end


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["demoo"], "demoo: there is no such target; did you mean demo? `make help` lists all."),
        (["nothing"], "nothing: there is no such target; `make help` lists all."),
        (["demo", "INSTANCES=two"], "INSTANCES=two: must be a number of 1 or more."),
        (["demo", "LOCALAWS_PORT=99999"], "LOCALAWS_PORT=99999: ports end at 65535."),
        (["apply", "STACK=found"], "STACK=found: must be one of foundation serving all."),
        (["logs", "WHAT=it"], "WHAT=it: must be one of endpoint function training ec2 build."),
        (["deploy", "ENV=nowhere"], "ENV=nowhere: must be one of dev local prod."),
        (["deploy", "MODEL=no such.tar.gz"], "MODEL=no such.tar.gz: there is no such file."),
        (["invoke"], "make invoke: add FILE=... or URL=..., the photo to classify."),
        (
            ["unlock", "LOCK=1"],
            "make unlock: add STACK=foundation or STACK=serving, whose state is locked.",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(words, told, tmp_path):
    ran = make(*words, f"OUT={tmp_path / 'out'}")
    assert ran.returncode == 2
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {re.escape(told)}  Stop\.\n", ran.stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_networks_that_make_takes_are_those_of_the_trainer(tmp_path):
    from trainer.backbones import BACKBONES

    ran = make("--dry-run", "data", "BACKBONE=none")
    listed = re.search("must be one of (.*)\\.  Stop", ran.stderr)
    assert listed
    assert listed[1].split() == list(BACKBONES)


def test_a_signal_removes_no_report_that_is_whole(tmp_path):
    script = tmp_path / "venv/bin/python"
    script.parent.mkdir(parents=True)
    script.write_text(
        "#!/bin/sh\nfor last do :; done\n"
        'test "$2" != trainer.dataset || { echo whole > "$last"; kill -TERM $PPID; sleep 9; }\n'
    )
    script.chmod(0o755)
    (tmp_path / "venv/ready").touch()
    os.utime(tmp_path / "venv/ready", (2**32, 2**32))
    report = tmp_path / "o/data/digits/dataset_report.json"
    report.parent.mkdir(parents=True)
    report.write_text("former")
    os.utime(report, (1, 1))
    make("data", f"VENV={tmp_path}/venv", f"OUT={tmp_path}/o")
    assert report.read_text() == "whole\n"


def test_everything_may_go_to_a_folder_with_a_space(tmp_path):
    out = tmp_path / "my out ü"
    calls = printed_words("serve", f"OUT={out}", bin_folder=tmp_path / "bin")
    modules = [call[1] for call in calls]
    assert modules == [
        *("trainer.sources", "trainer.dataset", "trainer.tune", "trainer.train"),
        *("trainer.package", "inference.server"),
    ]
    assert calls[-1][calls[-1].index("--model") + 1].startswith(f"{out}/digits-")


@pytest.mark.parametrize("name", ["a:b", "50%", "a|b", "x(1)", "a\\b", "a=b", "a#b", "a*"])
@pytest.mark.parametrize("variable", ["OUT", "VENV"])
def test_a_folder_that_make_cannot_name_is_refused_in_one_line(variable, name):
    ran = make("package", f"{variable}=/nowhere/{name}")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert f"{variable}=/nowhere/{name}" in ran.stderr


class TestClean:
    def test_it_removes_a_folder_of_kennels_own(self, tmp_path):
        out = tmp_path / "a b"
        make("data", f"OUT={out}", f"DATASET={tmp_path / 'nothing'}")
        assert out.is_dir()
        (tmp_path / "a").mkdir()
        assert make("clean", f"OUT={out}").returncode == 0
        assert not out.exists()
        assert (tmp_path / "a").is_dir()

    def test_it_keeps_a_folder_that_was_there_before(self, tmp_path):
        (tmp_path / "thesis.txt").touch()
        make("data", f"OUT={tmp_path}", f"DATASET={tmp_path / 'nothing'}")
        ran = make("clean", f"OUT={tmp_path}")
        assert ran.returncode == 2
        assert str(tmp_path) in ran.stderr
        assert (tmp_path / "thesis.txt").exists()

    def test_it_follows_no_link(self, tmp_path):
        (tmp_path / "made").mkdir()
        (tmp_path / "made/.kennel").touch()
        (tmp_path / "link").symlink_to(tmp_path / "made")
        ran = make("clean", f"OUT={tmp_path / 'link'}")
        assert ran.returncode == 2
        assert "link is a link: name the folder that it leads to" in ran.stderr
        assert (tmp_path / "link/.kennel").exists()

    def test_it_leaves_the_state_of_a_localaws_that_runs(self, tmp_path):
        (tmp_path / ".kennel").touch()
        (tmp_path / "localaws").mkdir()
        (tmp_path / "localaws/server.json").touch()
        ran = make("clean", f"OUT={tmp_path}")
        assert "make local-down" in ran.stderr
        assert (tmp_path / "localaws/server.json").exists()

    def test_it_takes_no_folder_from_the_shell(self, tmp_path):
        (tmp_path / ".kennel").touch()
        ran = make("clean", OUT=str(tmp_path))
        assert ran.returncode == 2
        assert "comes from your shell" in ran.stderr
        assert tmp_path.is_dir()

    def test_it_removes_no_environment(self, tmp_path):
        for name in (".kennel", "pyvenv.cfg"):
            (tmp_path / name).touch()
        ran = make("clean", f"OUT={tmp_path}")
        assert ran.returncode == 2
        assert "is an environment" in ran.stderr
        assert (tmp_path / "pyvenv.cfg").exists()

    @pytest.mark.parametrize("name", ["a\tb", "a\nb"])
    def test_a_name_is_one_line_of_one_word_for_make(self, name, tmp_path):
        (tmp_path / "a").mkdir()
        ran = make("clean", f"OUT={tmp_path}/{name}")
        assert ran.returncode == 2
        assert "OUT: a tab or a new line" in ran.stderr

    def test_an_empty_name_is_refused(self):
        assert "OUT is empty" in make("clean", "OUT=").stderr


@pytest.mark.parametrize("target", ["destroy", "clean", "local-reset"])
@pytest.mark.parametrize("variable", ["ENV", "OUT"])
def test_what_is_removed_is_named_to_make(target, variable):
    ran = make("--dry-run", target, **{variable: "prod"})
    assert ran.returncode == 2
    assert f"{variable}=prod comes from your shell" in ran.stderr


@pytest.mark.parametrize("target", ["destroy", "clean", "local-reset"])
def test_nor_by_a_makefile_of_the_shell_s(target, tmp_path):
    (tmp_path / "own.mk").write_text(f"OUT := {tmp_path}\n")
    ran = make("--dry-run", target, MAKEFILES=str(tmp_path / "own.mk"))
    assert ran.returncode == 2
    assert "comes from your shell, and may say what is removed: unset it" in ran.stderr


def test_consent_that_the_shell_exports_does_not_count():
    for target in ("destroy", "apply", "deploy", "rollback"):
        ran = make("--dry-run", target, YES="1", DELETE_DATA="1")
        assert ran.returncode == 0
        assert "--auto-approve" not in ran.stdout
        assert "--delete-data" not in ran.stdout
        assert "--auto-approve" in make("--dry-run", target, "YES=1").stdout
    assert "--delete-data" in make("--dry-run", "destroy", "DELETE_DATA=1").stdout


@pytest.mark.parametrize("variable", ["MAKEFLAGS", "GNUMAKEFLAGS"])
def test_nor_does_it_as_a_flag_that_make_inherits(variable):
    ran = make("--dry-run", "destroy", **{variable: "YES=1 DELETE_DATA=1"})
    assert ran.returncode == 0
    assert not re.search("--(auto-approve|delete-data)", ran.stdout)
    for given in ("OUT=/precious", "ENV=prod"):
        ran = make("--dry-run", "destroy", **{variable: given})
        assert ran.returncode == 2
        assert f"{given} comes from your shell" in ran.stderr
    ran = make("--dry-run", "destroy", "ENV=prod", "YES=1", **{variable: "ENV=dev YES=0"})
    assert "--env 'prod'" in ran.stdout
    assert "--auto-approve" in ran.stdout


def test_nor_does_what_another_make_was_told(tmp_path):
    other = tmp_path / "Makefile"
    other.write_text(f"all:\n\t$(MAKE) --dry-run -C {quote(str(ROOT))} destroy\n")
    ran = make("-f", str(other), "YES=1", "DELETE_DATA=1")
    assert "terraform.cli destroy" in ran.stdout
    assert not re.search("--(auto-approve|delete-data)", ran.stdout)


@pytest.mark.parametrize("variable", ["YES", "DELETE_DATA"])
def test_consent_is_clear(variable):
    for refused in ("No", "NO", "n", "N", "Off", "False"):
        printed = make("--dry-run", "destroy", f"{variable}={refused}").stdout
        assert "terraform.cli destroy" in printed
        assert not re.search("--(auto-approve|delete-data)", printed)
    ran = make("--dry-run", "destroy", f"{variable}=nope")
    assert ran.returncode == 2
    assert f"{variable}=nope: must be 1 or 0" in ran.stderr


def test_a_lock_that_nobody_named_is_none(tmp_path):
    words = ("unlock", "STACK=serving", f"OUT={tmp_path / 'out'}")
    (call,) = printed_words(*words, bin_folder=tmp_path / "bin")
    assert call[call.index("--lock") + 1] == ""


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("EPOCH=3", "EPOCHS"),
        ("ENVV=local", "ENV"),
        ("INSTANCE=2", "INSTANCES"),
        ("FOO=1", ""),
        ("epochs=3", "EPOCHS"),
        ("DATSET:=dogs", "DATASET"),
        ("LOCALAWS_PROT=4589", "LOCALAWS_PORT"),
        ("DELETE-DATA=1", "DELETE_DATA"),
        ("BACKBON += it's $(shell echo) \n x=1", "BACKBONE"),
        ("Q7=", None),
    ],
)
def test_a_slip_in_a_name_is_refused_with_the_name_that_is_near(slip, meant):
    ran = make("--dry-run", "train", "ENV=local", slip)
    name = re.match(r"[\w-]+", slip)[0]
    hint = f" did you mean {meant}?" if meant else ""
    assert ran.returncode == 2
    assert re.fullmatch(
        rf"Makefile:\d+: \*\*\* {name}: there is no such variable;{re.escape(hint)} "
        r"`make help` lists all\.  Stop\.\n",
        ran.stderr,
    )
    assert ran.stdout == ""


def test_every_variable_that_the_makefile_reads_may_be_given():
    text = (ROOT / "Makefile").read_text()
    read = set(re.findall(r"\$[({]([A-Z_]{2,})[)}]", text))
    read |= set(
        re.findall(r"\((?:value |call (?:typed|target|on|told|flag,[^,]+),)([A-Z_]+)\)", text)
    )
    assert {"UPGRADE", "DEBUG", "TESTS", "BENCH_FLAGS", "VENV", "FLAGS", "SPOT"} <= read
    computed = {"REPORT", "PYTHON", "MAKECMDGOALS"}  # with a value of their own, or make's
    chosen = {"BACKBONE": "resnet18"}  # of a list that `help` looks at, too
    free = read - computed - {"UNFREEZE", "ENGINE", "WEATHER", "WHERE"}
    given = [f"{name}={chosen.get(name, 1)}" for name in free]
    ran = make("--dry-run", "help", *given)
    assert ran.returncode == 0, ran.stderr
    programs = ("AWS_PROFILE=me", "TERRAFORM=tofu", "KENNEL_DOGS=/dogs", "HTTPS_PROXY=x")
    assert make("--dry-run", "status", *programs).returncode == 0


def test_what_the_shell_exports_is_no_slip(tmp_path):
    other = tmp_path / "Makefile"
    other.write_text(f"all:\n\t$(MAKE) --dry-run -C {quote(str(ROOT))} status\n")
    assert make("-f", str(other), "REGION=x").returncode == 0
    ran = make("--dry-run", "status", EPOCH="3", MAKEFLAGS="INSTANCE=2")
    assert ran.returncode == 0, ran.stderr


def made(tmp_path, goal, *given, failing=""):
    """The modules that make runs for a goal, and what it printed; one of them may fail."""
    python = tmp_path / "venv/bin/python"
    if not python.exists():
        python.parent.mkdir(parents=True)
        # Leaves what the step leaves, as far as make looks at it.
        python.write_text(
            """#!/bin/sh
echo "$2" >> "$RAN"
test "$2" != "$FAILING" || exit 1
for word; do
  case "$before" in --output-dir|--output|--model-dir|--report) place=$word;; esac
  case "$before$2" in --model-dirtrainer.train) break;; esac
  before=$word
done
case "$2" in
  trainer.dataset) test -e "$place" || { mkdir -p "${place%/*}" && touch "$place"; };;
  trainer.tune) mkdir -p "$place" && touch "$place/best.json";;
  trainer.train) mkdir -p "$place" && touch "$place/weights.safetensors";;
  trainer.package) touch "$place";;
  trainer.evaluate) mkdir -p "$place" && touch "$place/evaluation.json";;
  trainer.done) echo "$*";;
esac
"""
        )
        python.chmod(0o755)
        (tmp_path / "venv/ready").touch()
        os.utime(tmp_path / "venv/ready", (2**32, 2**32))
    log = tmp_path / "ran"
    log.write_text("")
    places = (f"VENV={tmp_path}/venv", f"OUT={tmp_path}/out")
    ran = make(goal, *places, *given, RAN=str(log), FAILING=failing)
    assert (ran.returncode == 0) == (not failing), ran.stderr
    always = {"trainer.sources", "trainer.dataset", "trainer.done"}
    return [name for name in log.read_text().split() if name not in always], ran.stdout


@pytest.mark.parametrize(
    ("goal", "module", "flag"),
    [
        ("tune", "trainer.tune", "TRIALS=3"),
        ("train", "trainer.train", "EPOCHS=2"),
        ("tune", "trainer.tune", "FLAGS=--note 'a  b, $(c)' #"),
    ],
)
def test_a_run_that_fails_leaves_what_the_result_was_made_with(goal, module, flag, tmp_path):
    assert module in made(tmp_path, goal)[0]
    assert made(tmp_path, goal)[0] == []
    assert made(tmp_path, goal, flag, failing=module)[0] == [module]
    assert made(tmp_path, goal)[0] == [], "what is there was made so"
    assert made(tmp_path, goal, flag)[0] == [module], "and not with these"
    assert made(tmp_path, goal, flag)[0] == []
    assert made(tmp_path, goal)[0] == [module]


def test_a_target_is_told_what_was_made_for_it(tmp_path):
    def told(goal):
        last = made(tmp_path, goal)[1].splitlines()[-1]
        return re.search(f" --made ([a-z ]*) ?{goal}$", last)[1].strip()

    assert told("tune") == "tune"
    assert told("tune") == ""
    assert told("evaluate") == "train trained package served"
    assert told("evaluate") == told("package") == told("train") == ""
    (tmp_path / "out/digits-efficientnet_lite0-all/served/evaluation.json").unlink()
    assert told("evaluate") == "served"


@pytest.mark.parametrize("off", ["0", "no", "false", "False", "NO", ""])
def test_a_switch_can_be_off(off):
    printed = make("--dry-run", "destroy", f"YES={off}", f"DELETE_DATA={off}", f"JSON={off}").stdout
    assert not re.search("--(auto-approve|delete-data|json)", printed)


def test_the_start_up_file_of_a_shell_is_no_environment():
    assert "--env 'dev'" in make("--dry-run", "status", ENV="/home/me/.kshrc").stdout
    assert "--env 'prod'" in make("--dry-run", "status", ENV="prod").stdout


def test_an_environment_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    ran = make("env", f"VENV={tmp_path / 'venv'}", f"OUT={tmp_path / 'out'}")
    assert ran.returncode == 2
    assert "is not Kennel's" in ran.stderr
    assert list((tmp_path / "venv").iterdir()) == [tmp_path / "venv/bin"]


def test_a_folder_of_what_was_built_is_no_environment(tmp_path):
    for name in (".kennel", "model.tar.gz"):
        (tmp_path / name).touch()
    ran = make("env", f"VENV={tmp_path}", f"OUT={tmp_path / 'out'}")
    assert ran.returncode == 2
    assert "is not Kennel's" in ran.stderr
    assert (tmp_path / "model.tar.gz").exists()


def test_every_target_and_variable_is_explained():
    lines = (ROOT / "Makefile").read_text().splitlines()
    phony = {name for line in lines if line.startswith(".PHONY:") for name in line.split()[1:]}
    printed = make("help").stdout
    for name in phony - {"FORCE"}:
        assert re.search(rf"^  {name} +\S", printed, re.MULTILINE), name
    for line in lines:
        if found := re.match(r"([A-Z_]+) \?=", line):
            assert re.search(rf"^  {found[1]} ", printed, re.MULTILINE), found[1]


def test_the_help_fits_a_terminal_and_its_words_stand_in_their_column():
    printed = make("help").stdout
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    targets, variables = printed.split("\nVariables, with their defaults\n")
    for part, column in ((targets, 17), (variables, 35)):
        told = [line for line in part.splitlines() if line.startswith("  ")]
        headings = re.findall(r"^  [A-Z][a-z].*$", part, re.MULTILINE)
        long = re.findall(r"^  BENCH +training .*$", part, re.MULTILINE)  # its text is below it
        for line in set(told) - {*headings, *long}:
            assert line[column] != " " == line[column - 1], line
    assert targets.count("\n" + " " * 17) >= 4  # what is longer goes on there


def test_the_help_tells_variables_by_what_they_belong_to():
    variables = make("help").stdout.partition("\nVariables, with their defaults\n")[2]
    groups = {
        block.splitlines()[0].strip(): re.findall(r"^  ([A-Z_]+) ", block, re.MULTILINE)
        for block in variables.strip("\n").split("\n\n")
    }
    assert groups["The photos and the model"][:4] == ["DATASET", "BACKBONE", "UNFREEZE", "EPOCHS"]
    assert set(groups["For those who work on Kennel"]) == {
        *("TESTS", "JOBS", "AGAINST", "BENCH", "BENCH_FLAGS", "UPGRADE"),
    }
    assert list(groups)[-1] == "For those who work on Kennel"
    named = [name for names in groups.values() for name in names]
    assert len(named) == len(set(named)) == len(re.findall(r"^  [A-Z_]+ ", variables, re.MULTILINE))


# macOS has make 3.81, bash 3.2 and BSD's tools, none of which can be had here: what they lack is
# looked for.
GNU_ONLY = {
    "date": r"\bdate\b[^|;]*%N",
    "sed": r"\bsed\b[^|;]* (-i|-r|-z|-s)\b",
    "grep": r"\bgrep\b[^|;]* -[a-zA-Z]*P",
    "readlink": r"\breadlink -(f|e|m)\b|\brealpath\b",
    "stat": r"\bstat (-c|--)",
    "find": r"\bfind\b[^|;]* -printf",
    "xargs": r"\bxargs\b[^|;]* -(r|d)\b",
    "cp": r"\bcp\b[^|;]* --[a-z]",
    "programs": r"(?<!-)\b(sha256sum|md5sum|nproc|timeout|tac|shuf|flock|setsid|getent)\b(?!-)",
    "bash 4": r"\b(mapfile|readarray|declare -A|coproc)\b|\$\$?\{\w+(,,|\^\^|@Q)",
    "make 4": r"^(undefine|\.ONESHELL|define \w+ [:?+]?=)|\$\((file|let|intcmp) |^\w+ *!=|::=|&:",
}


@pytest.mark.parametrize("kind", GNU_ONLY)
@pytest.mark.parametrize("script", ["Makefile", ".ci/run"])
def test_nothing_needs_what_macos_lacks(script, kind):
    for number, line in enumerate((ROOT / script).read_text().splitlines(), 1):
        assert not re.search(GNU_ONLY[kind], line), f"{script}:{number}: {line}"


def test_a_recipe_fails_with_its_first_command_without_the_shells_flags_of_make_4(tmp_path):
    """make 3.81 starts the shell with `-c` alone."""
    (tmp_path / "odd").mkdir()
    calls = printed_words(
        "data", f"DATASET={tmp_path}", f"OUT={tmp_path}/o", ".SHELLFLAGS=-c", bin_folder=tmp_path
    )
    assert len(calls) == 2
    python = tmp_path / "venv/bin/python"
    python.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran; exit 1\n")
    ran = make(
        *("data", f"VENV={tmp_path}/venv", f"DATASET={tmp_path}", f"OUT={tmp_path}/o"),
        ".SHELLFLAGS=-c",
    )
    assert ran.returncode == 2
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_the_environment_is_of_the_python_that_is_named_and_says_what_it_fetches(tmp_path):
    log, venv = tmp_path / "log", tmp_path / "venv"
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(
        f'#!/bin/sh\necho "$*" >> {quote(str(log))}\ntest "$1" = venv || exit 0\n'
        f"mkdir -p {quote(str(venv / 'bin'))}; cd {quote(str(venv))}; touch pyvenv.cfg\n"
        "printf '#!/bin/sh\\n' > bin/python; chmod +x bin/python\n"
    )
    uv.chmod(0o755)
    path = f"{uv.parent}:{os.environ['PATH']}"

    def made(*given, **environment):
        log.write_text("")
        ran = make(
            "env", f"VENV={venv}", f"OUT={tmp_path / 'out'}", *given, PATH=path, **environment
        )
        assert ran.returncode == 0, ran.stderr
        pythons = re.findall(r"^venv .*--python (\S+)", log.read_text(), re.MULTILINE)
        return pythons, ran.stderr

    pythons, said = made(UV_PYTHON="3.12")
    assert pythons == ["3.12"]
    assert "GB to fetch" in said
    assert "GB on disk" in said
    assert made() == ([], "")  # what is there stays
    assert made("UV_PYTHON=3.13")[0] == ["3.13"]


@pytest.mark.parametrize("goal", ["plan", "apply", "destroy", "deploy", "rollback", "lambda"])
def test_only_make_lambda_prints_where_the_zips_are(goal: str, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin/python"
    python.write_text('#!/bin/sh\ntest "$2" != lambda_src.build || echo a.zip\n')
    python.chmod(0o755)
    (venv / "ready").touch()
    os.utime(venv / "ready", (2**32, 2**32))  # newer than the lock
    ran = make(goal, f"VENV={venv}", f"OUT={tmp_path / 'out'}", "ENV=local")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ("a.zip\n" if goal == "lambda" else "")
