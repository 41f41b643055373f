"""Signing in: every grant's form, when a token is renewed, and that nobody is locked out by us."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core.errors import Blame, HostRefused, PlatformError, SignInRefused
from btp_reconcile.core.model import Secret
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.edges.tokens import JWT_BEARER, Credentials, People, SignIn, claims, named

if TYPE_CHECKING:
    from btp_reconcile.edges.calls import Form

URL = "https://uaa.cf.eu10.hana.ondemand.com/oauth/token"


def jwt(**told) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, told)]
    return ".".join([*parts, "sig"])


class Desk:
    """A token endpoint that plays a script and keeps the forms."""

    def __init__(self, *script) -> None:
        self.script = list(script)
        self.forms: list[Form] = []
        self.clock = MovingClock()
        self.people = People()

    def post(self, form) -> Any:
        self.forms.append(form)
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sign_in(self, credentials, url=URL) -> SignIn:
        return SignIn(
            credentials,
            token_url=lambda: url,
            post=self.post,
            clock=self.clock.now,
            platform_clock=self.clock.now,
            people=self.people,
        )


def token(number=1, **more) -> dict[str, Any]:
    return {"access_token": f"token-{number}", "token_type": "bearer", "expires_in": 1199, **more}


def refusal(status=401, text="Bad credentials") -> PlatformError:
    return PlatformError(Blame("sign_in", "POST", URL, status=status, code="unauthorized", message=text))


def person(name="dev", password="pa+ss", origin="") -> Credentials:
    return Credentials(name, "password", username=name, password=Secret("password", password), origin=origin)


# --- forms ----------------------------------------------------------------------------------------------


CLIENT: dict[str, Any] = {"client_id": "sb-x!b1|y", "client_secret": Secret("s", "a+b=$|")}


@pytest.mark.parametrize(
    ("credentials", "fields", "query", "basic"),
    [
        (person(), {"grant_type": "password", "username": "dev", "password": "pa+ss"}, (), "cf:"),
        (
            person(origin="my-idp"),
            {"grant_type": "password", "username": "dev", "password": "pa+ss"},
            (("login_hint", '{"origin":"my-idp"}'),),
            "cf:",
        ),
        (
            Credentials("c", "client_credentials", origin="ignored", **CLIENT),
            {"grant_type": "client_credentials", "client_id": "sb-x!b1|y", "client_secret": "a+b=$|"},
            (),
            None,
        ),
        (
            Credentials("a", JWT_BEARER, assertion=Secret("a", "as.ser.tion"), origin="my-idp"),
            {"grant_type": JWT_BEARER, "assertion": "as.ser.tion"},
            (("login_hint", '{"origin":"my-idp"}'),),
            "cf:",
        ),
        (
            Credentials("a", JWT_BEARER, assertion=Secret("a", "as.ser.tion"), **CLIENT),
            {"grant_type": JWT_BEARER, "assertion": "as.ser.tion", "client_id": "sb-x!b1|y", "client_secret": "a+b=$|"},
            (),
            None,
        ),
        (
            Credentials("r", refresh_token=Secret("r", "r-1"), origin="my-idp"),
            {"grant_type": "refresh_token", "refresh_token": "r-1"},
            (("login_hint", '{"origin":"my-idp"}'),),
            "cf:",
        ),
    ],
)  # fmt: skip
def test_each_grant_has_its_form(credentials, fields, query, basic):
    desk = Desk(token())
    desk.sign_in(credentials).get()
    (form,) = desk.forms

    assert dict(form.fields) == fields
    assert form.query == query
    expected = {"Authorization": "Basic " + base64.b64encode(basic.encode()).decode()} if basic else {}
    assert form.headers == expected


def test_a_client_without_a_secret_is_encoded_where_it_must_be():
    desk = Desk(token())
    desk.sign_in(Credentials("r", refresh_token=Secret("r", "r-1"), client_id="a!b|c")).get()

    assert desk.forms[0].headers == {
        "Authorization": "Basic " + base64.b64encode(b"a%21b%7Cc:").decode(),
        "X-CF-ENCODED-CREDENTIALS": "true",
    }


def test_a_certificate_stands_for_the_secret():
    desk = Desk(token())
    who = Credentials(
        "c", "client_credentials", client_id="c", certificate=Secret("c", "CERT"), key=Secret("k", "KEY")
    )
    desk.sign_in(who).get()
    (form,) = desk.forms

    assert dict(form.fields) == {"grant_type": "client_credentials", "client_id": "c"}
    assert form.headers == {}
    assert form.certificate == ("CERT", "KEY")


def test_nothing_secret_is_in_a_repr():
    desk = Desk(token())
    who = person(password="hunter2")
    one = desk.sign_in(who)
    one.get()

    for thing in (who, one, desk.forms[0], one._read(desk.forms[0], token())):
        assert "hunter2" not in repr(thing)
        assert "token-1" not in repr(thing)


# --- renewal --------------------------------------------------------------------------------------------


def test_a_token_is_used_until_a_minute_before_its_end():
    desk = Desk(token(1), token(2))
    one = desk.sign_in(person())

    assert one.get() == "token-1"
    desk.clock.sleep(1138)
    assert one.get() == "token-1"
    desk.clock.sleep(1)
    assert one.get() == "token-2"


def test_or_until_half_of_its_life():
    desk = Desk(token(1, expires_in=43199), token(2))
    one = desk.sign_in(Credentials("c", "client_credentials", half_life=True, **CLIENT))
    one.get()
    desk.clock.sleep(21599)
    assert one.get() == "token-1"
    desk.clock.sleep(1)
    assert one.get() == "token-2"


def test_a_short_life_is_halved_too():
    desk = Desk(token(1, expires_in=40), token(2))
    one = desk.sign_in(person())
    one.get()
    desk.clock.sleep(19)
    assert one.get() == "token-1"
    desk.clock.sleep(1)
    assert one.get() == "token-2"


@pytest.mark.parametrize("expires_in", [None, "1199", 0, -1, True, 1e300])
def test_a_life_that_is_not_said_is_read_in_the_token(expires_in):
    desk = Desk(token(1, expires_in=expires_in, access_token=jwt(iat=100, exp=400)), token(2))
    one = desk.sign_in(person())
    one.get()
    desk.clock.sleep(239)
    one.get()
    assert len(desk.forms) == 1
    desk.clock.sleep(1)
    assert one.get() == "token-2"


def test_a_life_that_is_said_nowhere_is_short():
    desk = Desk(token(1, expires_in=None), token(2))
    one = desk.sign_in(person())
    one.get()
    desk.clock.sleep(540)

    assert one.get() == "token-2"


def test_a_refresh_token_is_used_and_kept():
    desk = Desk(token(1, refresh_token="r-1"), token(2), token(3, refresh_token="r-2"), token(4))
    one = desk.sign_in(person())
    for _ in range(4):
        one.get()
        desk.clock.sleep(1199)

    grants = [dict(form.fields) for form in desk.forms]
    assert [row.get("refresh_token") for row in grants] == [None, "r-1", "r-1", "r-2"]


def test_an_ended_refresh_token_leads_to_a_new_sign_in():
    desk = Desk(token(1, refresh_token="r-1"), refusal(401, "expired"), token(2))
    one = desk.sign_in(person())
    one.get()
    desk.clock.sleep(1199)

    assert one.get() == "token-2"
    assert [dict(form.fields)["grant_type"] for form in desk.forms] == [
        "password",
        "refresh_token",
        "password",
    ]


def test_a_platform_in_trouble_does_not_cost_the_refresh_token():
    desk = Desk(token(1, refresh_token="r-1"), refusal(503, "down"), token(2))
    one = desk.sign_in(person())
    one.get()
    desk.clock.sleep(1199)

    with pytest.raises(PlatformError):
        one.get()
    assert one.get() == "token-2"
    assert dict(desk.forms[2].fields)["grant_type"] == "refresh_token"


def test_a_dropped_token_is_not_given_out_again():
    desk = Desk(token(1), token(2))
    one = desk.sign_in(person())
    one.drop(one.get())
    assert one.get() == "token-2"
    one.drop("token-1")  # by a thread that comes late
    assert one.get() == "token-2"


def test_many_threads_cost_one_sign_in():
    desk = Desk(*[token(number) for number in range(1, 20)])
    one = desk.sign_in(person())
    found = []
    threads = [threading.Thread(target=lambda: found.append(one.get())) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert found == ["token-1"] * 12
    assert len(desk.forms) == 1


# --- tokens that were handed over -----------------------------------------------------------------------


def test_a_given_token_is_used_while_it_lives_and_then_refreshed():
    desk = Desk(token(2))
    given = jwt(exp=desk.clock.now() + 300)
    one = desk.sign_in(Credentials("x", access_token=Secret("a", given), refresh_token=Secret("r", "r-1")))

    assert one.get() == given
    desk.clock.sleep(241)
    assert one.get() == "token-2"


@pytest.mark.parametrize("given", [jwt(exp=5), "with\nnewline"])
def test_a_given_token_that_is_no_good_is_not_sent(given):
    desk = Desk(token(2))
    one = desk.sign_in(Credentials("x", access_token=Secret("a", given), refresh_token=Secret("r", "r-1")))

    assert one.get() == "token-2"


def test_a_given_token_of_unknown_age_is_tried():
    desk = Desk()

    assert desk.sign_in(Credentials("x", access_token=Secret("a", "opaque"))).get() == "opaque"


def test_a_given_token_that_ended_cannot_be_replaced():
    desk = Desk()
    one = desk.sign_in(Credentials("x", access_token=Secret("a", jwt(exp=5)), advice="sign in again"))

    with pytest.raises(SignInRefused, match=r"nothing to get a new one with \(sign in again\)"):
        one.get()
    with pytest.raises(SignInRefused):
        one.get()
    assert desk.forms == []


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_final_and_costs_one_request(status):
    desk = Desk(refusal(status))
    one = desk.sign_in(person())

    for _ in range(3):
        with pytest.raises(
            SignInRefused, match=r"d… could not sign in at .*uaa.*: Bad credentials"
        ) as caught:
            one.get()
        assert caught.value.blame.status == status
    assert len(desk.forms) == 1


def test_a_password_that_stands_where_the_user_belongs_is_not_shown():
    name = "correct-horse-battery"
    one = Desk(refusal(401, f"User {name} not found")).sign_in(person(name, origin="my-idp"))

    with pytest.raises(SignInRefused) as caught:
        one.get()
    assert caught.value.blame.message.startswith("co… could not sign in at ")
    assert "User *** not found" in caught.value.blame.message
    assert name not in f"{caught.value.blame} {one!r}"


def test_trouble_is_no_refusal():
    desk = Desk(refusal(503), token())
    one = desk.sign_in(person())

    with pytest.raises(PlatformError) as caught:
        one.get()
    assert type(caught.value) is PlatformError
    assert one.get() == "token-1"


def test_a_refused_host_stays_one():
    desk = Desk(HostRefused(Blame("sign_in", message="no credential is sent")))

    with pytest.raises(HostRefused):
        desk.sign_in(person()).get()


def test_a_wrong_password_is_tried_at_one_landscape_only():
    """Ten landscapes with one user base behind them would lock the account in one run."""
    desk = Desk(refusal())
    refused = []

    def use(number):
        try:
            desk.sign_in(person(), f"https://uaa.cf.eu{number}.hana.ondemand.com/oauth/token").get()
        except SignInRefused as error:
            refused.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(desk.forms) == 1
    assert len(refused) == 10


@pytest.mark.parametrize("other", [person("other"), person(origin="idp"), person(password="changed")])
def test_somebody_else_may_still_try(other):
    desk = Desk(refusal(), token())

    with pytest.raises(SignInRefused):
        desk.sign_in(person()).get()
    assert desk.sign_in(other).get() == "token-1"


def test_a_password_that_was_right_is_asked_everywhere():
    desk = Desk(token(1), refusal(401, "unknown origin"), token(3))
    desk.sign_in(person()).get()

    with pytest.raises(SignInRefused):
        desk.sign_in(person(), "https://uaa.cf.eu20.hana.ondemand.com/oauth/token").get()
    assert desk.sign_in(person(), "https://uaa.cf.us10.hana.ondemand.com/oauth/token").get() == "token-3"


@pytest.mark.parametrize("answer", [[], {}, {"access_token": 5}, {"access_token": ""}, {"access_token": "a b"}, {"access_token": "ä"}, {"access_token": "a\n"}])  # fmt: skip
def test_an_answer_without_a_usable_token(answer):
    with pytest.raises(PlatformError, match="holds no usable token"):
        Desk(answer).sign_in(person()).get()


# --- what a token says ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.!!!.c", "a." + base64.b64encode(b"[1]").decode() + ".c", "ä.ö.ü"])  # fmt: skip
def test_a_token_that_says_nothing(text):
    assert claims(text) == {}
    assert named(text) == ""


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"user_name": "dev", "origin": "idp"}, "dev (idp)"),
        ({"user_name": 5, "client_id": "c"}, "c"),
        ({"email": "e@x", "sub": "s"}, "e@x"),
        ({"sub": "s\x1b[1m", "origin": 5}, "s [1m"),
        ({}, ""),
    ],
)
def test_a_token_names_its_user(told, name):
    assert named(jwt(**told)) == name
