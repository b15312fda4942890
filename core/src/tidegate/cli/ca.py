"""`tidegate ca`: the node's certificate authority, and how programs come to trust it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cryptography import x509

    from tidegate.runtime.ca import Authority

WARN_DAYS = 14

app = typer.Typer(
    no_args_is_help=True,
    help="The certificate authority that intercepted clients must trust.",
    epilog="A node that intercepts makes the CA in its state folder when it starts.",
)

Config = Annotated[
    Path | None,
    typer.Option(envvar="TIDEGATE_CONFIG", help="The configuration. Default: ./addons.toml."),
]
State = Annotated[
    Path | None,
    typer.Option(
        envvar="TIDEGATE_STATE",
        help="The node's state folder. Default: .tidegate beside the configuration.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
System = Annotated[str, typer.Option(help="debian, alpine or auto.")]


@app.command()
def show(config: Config = None, state: State = None, json: AsJson = False) -> None:
    """Say what the CA is, until when, and for which names."""
    describe(authority(config, state), as_json=json)


@app.command()
def export(
    config: Config = None,
    state: State = None,
    form: Annotated[str, typer.Option("--format", help="pem, der or p12.")] = "pem",
    out: Annotated[Path | None, typer.Option(help="Default: standard output.")] = None,
    all: Annotated[
        bool, typer.Option("--all", help="Earlier CAs too, that have not expired (pem, p12).")
    ] = False,
) -> None:
    """Write the certificate, never the key."""
    one_of("--format", form, ("pem", "der", "p12"))
    if all and form == "der":
        raise typer.BadParameter("a DER file holds one certificate", param_hint="--all")
    from .trust import export_file

    found = authority(config, state)
    data = encode(found.all if all else (found.certificate,), form)
    if out is None:
        sys.stdout.buffer.write(data)
    else:
        export_file(out, data)


@app.command(epilog='Examples: eval "$(tidegate ca env)" · tidegate ca env --shell dotenv > .env')
def env(
    config: Config = None,
    state: State = None,
    shell: Annotated[str, typer.Option(help="sh, fish, powershell or dotenv.")] = "sh",
    dir: Annotated[
        Path | None,
        typer.Option(help="Where the files go that the lines name. Default: <state>/trust."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Print lines that let Python, Node, Java, Go, Ruby, curl and git trust the CA."""
    from .trust import SHELLS, unreadable, variables, write_material

    one_of("--shell", shell, tuple(SHELLS))
    found = authority(config, state)
    folder = dir or found.paths.folder.parent / "trust"
    material = write_material(folder.absolute(), found.all)
    lines = variables(material)
    if json:
        print_json(lines)
    else:
        for name, value in lines.items():
            print(SHELLS[shell](name, value))
    if closed := unreadable(material.own):
        note = f"note: only the owner of {closed} can read these files: for others, use --dir"
        print(note, file=sys.stderr)


@app.command()
def install(
    config: Config = None,
    state: State = None,
    system: System = "auto",
    root: Annotated[Path, typer.Option(help="The system's root, such as an image's.")] = Path("/"),
    remove: Annotated[bool, typer.Option("--remove", help="Undo it; needs no CA.")] = False,
) -> None:
    """Put the CA into a system's trust store, or take it out again."""
    one_of("--system", system, ("debian", "alpine", "auto"))
    from . import trust

    if remove:
        changed = trust.remove(root, system)
    else:
        changed = trust.install(authority(config, state).all, root, system)
    print("\n".join(changed) or "nothing to do")


@app.command(epilog="Example: tidegate ca rotate --permit example.com --permit 10.0.0.0/8")
def rotate(
    config: Config = None,
    state: State = None,
    days: Annotated[int, typer.Option(help="How long the new one is valid.")] = 90,
    permit: Annotated[
        list[str] | None,
        typer.Option(
            help="Name, with all below it, or network that it may sign for. May be repeated. "
            "Default: what the present one may."
        ),
    ] = None,
    any_name: Annotated[bool, typer.Option("--any-name", help="Drop its constraints.")] = False,
    json: AsJson = False,
) -> None:
    """Make a new CA; running nodes use it after a restart.

    The earlier certificate is kept until it expires, so that clients can trust both.
    """
    if permit and any_name:
        raise typer.BadParameter("not together with --permit", param_hint="--any-name")
    from tidegate.runtime.ca import rotate_ca

    names = tuple(permit or ())
    describe(
        rotate_ca(folder_of(config, state), days=days, permit=names, keep_constraints=not any_name),
        as_json=json,
    )


def authority(config: Path | None, state: Path | None) -> Authority:
    """The CA of the node that these options name. Raises ConfigError."""
    from tidegate.runtime.ca import read_ca

    return read_ca(folder_of(config, state))


def folder_of(config: Path | None, state: Path | None) -> Path:
    """The node's state folder, absolute. Raises ConfigError."""
    from .source import STATE, find

    return (state or Path(find(config).base) / STATE).absolute()


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a flag's value that is not one of these."""
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}", param_hint=flag)


def encode(certificates: tuple[x509.Certificate, ...], form: str) -> bytes:
    """Certificates in a format, without any key."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12

    if form == "der":
        return certificates[0].public_bytes(Encoding.DER)
    if form == "pem":
        return b"".join(c.public_bytes(Encoding.PEM) for c in certificates)
    # A name of its own for each: some readers of PKCS #12 keep one entry per name.
    entries = [
        pkcs12.PKCS12Certificate(c, f"tidegate-ca-{i}".encode()) for i, c in enumerate(certificates)
    ]
    return pkcs12.serialize_key_and_certificates(None, None, None, entries, NoEncryption())


def facts(certificate: x509.Certificate) -> dict[str, Any]:
    """What there is to say about a CA's certificate."""
    from tidegate.runtime.ca_certificate import constraints_of

    from .trust import fingerprint

    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "sha256": fingerprint(certificate),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": left.days,
        "permits": list(constraints_of(certificate)),
    }


def describe(found: Authority, *, as_json: bool) -> None:
    """Print a CA, and warn where it ends soon."""
    about = facts(found.certificate)
    if as_json:
        about["certificate"] = str(found.paths.certificate)
        about["previous"] = [facts(certificate) for certificate in found.previous]
        print_json(about)
    else:
        print(f"subject  {about['subject']}")
        print(f"sha256   {about['sha256']}")
        print(f"valid    {about['not_before']} to {about['not_after']}")
        print(f"signs    {', '.join(about['permits']) or 'any name'}")
        print(f"file     {found.paths.certificate}")
        for certificate in found.previous:
            earlier = facts(certificate)
            print(f"earlier  {earlier['sha256']} until {earlier['not_after']}")
    if found.expired:
        print("warning: the CA has expired: tidegate ca rotate", file=sys.stderr)
    elif about["days_left"] < WARN_DAYS:
        text = f"warning: the CA expires in {about['days_left']} days: tidegate ca rotate"
        print(text, file=sys.stderr)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    import orjson

    print(orjson.dumps(value).decode())
