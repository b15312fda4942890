"""The addon on exchanges: certificates, lists of revoked ones."""

import asyncio
import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError
from tidegate_auth_mtls import AuthMtls, AuthMtlsConfig
from tidegate_auth_mtls.certificates import RevocationError, read

from tidegate.api import AddonContext, Client, Denial, Principal
from tidegate.runtime.pipeline import strip_credentials
from tidegate.testing import make_exchange
from tidegate.testing.contracts import AuthContract, PluginContract

NOW = 1_750_000_000
KEY = ec.generate_private_key(ec.SECP256R1())
DAY = datetime.timedelta(days=1)
TIME = datetime.datetime.fromtimestamp(NOW, datetime.UTC)


def name(**parts):
    oids = {"cn": NameOID.COMMON_NAME, "o": NameOID.ORGANIZATION_NAME,
            "ou": NameOID.ORGANIZATIONAL_UNIT_NAME}  # fmt: skip
    return x509.Name(
        [x509.NameAttribute(oids[k], v) for k, vs in parts.items()
         for v in (vs if isinstance(vs, list) else [vs])]
    )  # fmt: skip


CA = name(cn="Test CA")


def certificate(*alternatives, serial=1, issuer=CA, **subject):
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(**subject))
        .issuer_name(issuer)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(TIME - DAY)
        .not_valid_after(TIME + DAY)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def crl(*serials, issuer=CA, until=DAY, form=serialization.Encoding.PEM):
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(TIME - DAY)
        .next_update(TIME + until)
    )
    for serial in serials:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(TIME).build()
        )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(form)


def ask(der, now=NOW, **headers):
    client = Client("192.0.2.1", 1, "192.0.2.1", tls=True, certificate=der)
    return make_exchange(headers=headers, client=client, now=now)


def addon(tmp_path, **options):
    config = AuthMtlsConfig.model_validate(options)
    return AuthMtls(config, AddonContext("auth-mtls", tmp_path / "state", base=tmp_path))


def who(plugin, der, now=NOW):
    result = plugin.authenticate(ask(der, now))
    if isinstance(result, Denial):
        return result.code
    return None if result is None else result.id


FULL = certificate(
    x509.DNSName("Billing.internal"),
    x509.UniformResourceIdentifier("spiffe://prod/billing"),
    x509.RFC822Name("ada@x.test"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
    cn="billing", o="Apps", ou=["one", "two"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"fingerprint": read(FULL).fingerprint}, True),
        ({"fingerprint": "0" * 64}, False),
        ({"common_name": "billing"}, True),
        ({"common_name": "Billing"}, False),
        ({"organization": "Apps", "organizational_unit": "two"}, True),
        ({"organization": "Apps", "organizational_unit": "three"}, False),
        ({"dns": "billing.internal"}, True),
        ({"dns": "internal"}, False),
        ({"uri": "spiffe://prod/billing"}, True),
        ({"email": "ada@x.test"}, True),
        ({"ip": "10.0.0.1"}, True),
        ({"dns": "spiffe://prod/billing"}, False),
    ],
)
def test_which_certificate_is_a_clients(tmp_path, wanted, fits):
    plugin = addon(tmp_path, clients=[{"name": "b", "team": "t", **wanted}])
    assert who(plugin, FULL) == ("t/b" if fits else None)


def test_a_client_has_its_roles_and_fingerprint(tmp_path):
    plugin = addon(
        tmp_path, clients=[{"name": "b", "uri": "spiffe://prod/billing", "roles": ["r"]}]
    )
    principal = plugin.authenticate(ask(FULL))
    assert principal == Principal("b")
    assert dict(principal.attributes) == {"fingerprint": read(FULL).fingerprint, "roles": ("r",)}


BY_NAME = {"name": "common_name"}
BY_UNIT = {**BY_NAME, "team": "organizational_unit"}


@pytest.mark.parametrize(
    ("others", "subject", "wanted"),
    [
        (BY_NAME, {"cn": "ada"}, "ada"),
        (BY_UNIT, {"cn": "ada", "ou": "ml"}, "ml/ada"),
        ({"name": "common_name", "team": "guests"}, {"cn": "ada"}, "guests/ada"),
        (BY_NAME, {"cn": "ml/ada"}, "ml%2Fada"),
        (BY_UNIT, {"cn": "ada"}, None),
        (BY_UNIT, {"cn": "a", "ou": "b/c"}, None),
        (BY_UNIT, {"cn": "a", "ou": ["b", "c"]}, None),
        (BY_NAME, {"cn": ["ada", "bob"]}, None),
        (BY_NAME, {"o": "x"}, None),
        ({"name": "dns"}, {"cn": "ada"}, None),
    ],
)  # fmt: skip
def test_names_of_other_certificates(tmp_path, others, subject, wanted):
    assert who(addon(tmp_path, others=others), certificate(**subject)) == wanted


def test_without_a_certificate_it_has_nothing_to_say(tmp_path):
    plugin = addon(tmp_path, others={"name": "common_name"})
    assert plugin.authenticate(make_exchange()) is None


def test_a_certificate_ends_also_while_its_connection_lasts(tmp_path):
    plugin = addon(tmp_path, others={"name": "common_name"})
    der = certificate(cn="ada")
    assert who(plugin, der, NOW + 86_399) == "ada"
    assert who(plugin, der, NOW + 86_400) == "certificate_expired"
    assert who(plugin, der, NOW - 86_401) == "certificate_expired"


@pytest.mark.parametrize("field", ["client-cert", "X-Forwarded-Client-Cert"])
def test_what_a_caller_claims_of_a_certificate_goes_no_further(tmp_path, field):
    plugin = addon(tmp_path, others={"name": "common_name"})
    exchange = ask(None, **{field: "forged"})
    assert plugin.authenticate(exchange) is None
    strip_credentials(exchange)
    assert "forged" not in repr(exchange.request.headers.fields)


# -- revocation -------------------------------------------------------------------------------


async def test_revoked_certificates_end_at_once_and_lists_are_read_again(tmp_path, caplog):
    file = tmp_path / "crl.pem"
    other = name(cn="Other CA")
    file.write_bytes(crl(7) + crl(8, issuer=other))
    plugin = addon(tmp_path, others={"name": "common_name"}, crl="crl.pem")
    one, seven = certificate(cn="a"), certificate(cn="a", serial=7)
    await plugin.startup(None)
    assert who(plugin, one) == "a"
    assert who(plugin, seven) == "certificate_revoked"
    assert who(plugin, certificate(cn="a", serial=7, issuer=other)) == "a"
    assert who(plugin, certificate(cn="a", issuer=name(cn="Third"))) == "revocation_unknown"
    counts = plugin.context.counters.values
    async with asyncio.timeout(20):
        file.write_bytes(b"nonsense")
        while not counts.get("crl_errors_total"):
            await asyncio.sleep(0.05)
        assert who(plugin, seven) == "certificate_revoked", "the lists stay"
        file.write_bytes(crl(1, until=DAY / 2))
        while not counts.get("crl_reloads_total"):
            await asyncio.sleep(0.05)
    assert who(plugin, one) == "certificate_revoked"
    assert who(plugin, seven) == "a"
    assert who(plugin, seven, NOW + 43_200) == "revocation_unknown"
    assert who(plugin, one, NOW + 43_200) == "certificate_revoked"
    await plugin.shutdown()
    assert "crl.pem" in caplog.text


@pytest.mark.parametrize(
    "content",
    [None, b"", b"nonsense", crl(1)[:100]],
    ids=["missing", "empty", "nonsense", "cut"],
)
async def test_a_file_that_can_not_be_read_refuses_to_load(tmp_path, content):
    if content is not None:
        (tmp_path / "crl.pem").write_bytes(content)
    plugin = addon(tmp_path, others={"name": "common_name"}, crl="crl.pem")
    with pytest.raises(RevocationError):
        await plugin.startup(None)


async def test_a_list_in_der(tmp_path):
    (tmp_path / "list.crl").write_bytes(crl(1, form=serialization.Encoding.DER))
    plugin = addon(tmp_path, others={"name": "common_name"}, crl="list.crl")
    await plugin.startup(None)
    assert who(plugin, certificate(cn="a")) == "certificate_revoked"
    await plugin.shutdown()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "`clients` or `others`"),
        ({"clients": [{"name": "a"}]}, "say which"),
        ({"clients": [{"name": "a", "fingerprint": "AA:BB"}]}, "pattern"),
        ({"others": {"name": "serial"}}, "common_name"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(ValidationError, match=reason):
        AuthMtlsConfig.model_validate(options)


# -- the contract -----------------------------------------------------------------------------


class TestPlugin(PluginContract):
    name = "auth-mtls"

    def options(self):
        return {"others": {"name": "common_name"}}


@pytest.fixture(scope="module", autouse=True)
def crl_file(tmp_path_factory):
    TestAuth.file = tmp_path_factory.mktemp("crl") / "crl.pem"
    TestAuth.file.write_bytes(crl(7, 8, 9))


class TestAuth(AuthContract):
    name = "auth-mtls"

    def options(self):
        return {"others": {"name": "common_name"}, "crl": str(self.file)}

    def good_exchange(self):
        return ask(certificate(cn="ada"))

    def bad_exchanges(self):
        return [ask(certificate(cn="ada", serial=n)) for n in (7, 8, 9)]

    def secrets(self):
        return []
