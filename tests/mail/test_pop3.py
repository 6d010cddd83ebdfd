"""mail/pop3.py without a socket: what a client says, what it gets."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.fake_maildrop import MemoryMailboxes, MemoryMaildrop

from schleuse.errors import ConflictError, CorruptError, Error, RefusedError, UnavailableError
from schleuse.mail import pop3
from schleuse.mail.pop3_body import PIECE, end_of_top, multi_line

MAILS = (
    b"Subject: one\r\n\r\n.dot\r\n..two\r\nend\r\n",
    b"Subject: two\r\n\r\nline 1\r\nline 2\r\nline 3\r\n",
    b"no end of line",
)
LOGIN = b"USER kasse\r\nPASS geheim\r\n"


class Client:
    """Carries out the session's actions on a MemoryMailboxes, at once. password of all accounts: geheim."""

    def __init__(self, boxes: MemoryMailboxes | None = None, *, tls: bool = True, stls: bool = False) -> None:
        if boxes is None:
            boxes = MemoryMailboxes()
            for mail in MAILS:
                boxes.put("kasse", mail)
        self.boxes = boxes
        self.session = pop3.Session(hostname="pop.kim.example", tls=tls, stls=stls)
        self.received = b""
        self.closed = False
        self.logins: list[pop3.Login] = []
        self._drop: MemoryMaildrop | None = None

    def say(self, data: bytes) -> bytes:
        """What comes back for these bytes."""
        before = len(self.received)
        self._run(self.session.receive(data))
        return self.received[before:]

    def _run(self, actions: list[pop3.Action]) -> None:
        todo = [*actions]
        while todo:
            action = todo.pop(0)
            match action:
                case pop3.Reply(data):
                    self.received += data
                case pop3.Close():
                    self.closed = True
                case _:
                    todo = self.session.complete(self._outcome(action))

    def _outcome(self, action: pop3.Action) -> pop3.Outcome:
        try:
            match action:
                case pop3.Stream(pieces):
                    self.received += b"".join(pieces)
                    return pop3.Sent()
                case pop3.Login(user, password):
                    self.logins.append(action)
                    if password != "geheim":
                        raise pop3.BadCredentialsError("wrong")
                    self._drop = self.boxes.open(user)
                    return pop3.Opened(self._drop.entries())
                case pop3.Fetch(id) if self._drop:
                    return pop3.Fetched(self._drop.content(id))
                case pop3.Commit(ids) if self._drop:
                    self._drop.delete(ids)
                    self._drop.close()
                    return pop3.Committed()
                case pop3.StartTLS():
                    return pop3.TLSStarted()
        except Error as error:
            return pop3.Failed(error)
        raise AssertionError(f"{action} at this moment")


def logged_in() -> Client:
    client = Client()
    assert client.say(LOGIN).endswith(b"+OK 3 messages (88 octets)\r\n")
    return client


def test_a_mail_comes_back_byte_for_byte_with_dots_stuffed() -> None:
    client = logged_in()
    assert client.say(b"RETR 1\r\n") == (b"+OK 34 octets\r\nSubject: one\r\n\r\n..dot\r\n...two\r\nend\r\n.\r\n")


def test_a_mail_without_a_last_line_end_still_ends_the_reply() -> None:
    assert logged_in().say(b"RETR 3\r\n") == b"+OK 14 octets\r\nno end of line\r\n.\r\n"


@pytest.mark.parametrize(
    ("lines", "body"),
    [(b"0", b""), (b"1", b"line 1\r\n"), (b"2", b"line 1\r\nline 2\r\n"), (b"99", b"line 1\r\nline 2\r\nline 3\r\n")],
)
def test_top_gives_the_header_and_that_many_lines(lines: bytes, body: bytes) -> None:
    reply = logged_in().say(b"TOP 2 " + lines + b"\r\n")
    assert reply.split(b"\r\n", 1)[1] == b"Subject: two\r\n\r\n" + body + b".\r\n"


def test_stat_list_and_uidl_agree_and_leave_out_the_deleted() -> None:
    client = logged_in()
    client.say(b"DELE 2\r\n")
    assert client.say(b"STAT\r\n") == b"+OK 2 48\r\n"
    assert client.say(b"LIST\r\n") == b"+OK\r\n1 34\r\n3 14\r\n.\r\n"
    assert client.say(b"UIDL\r\n") == b"+OK\r\n1 u1\r\n3 u3\r\n.\r\n"
    assert client.say(b"LIST 3\r\nUIDL 3\r\n") == b"+OK 3 14\r\n+OK 3 u3\r\n"
    assert client.say(b"RETR 2\r\nTOP 2 0\r\nLIST 2\r\nUIDL 2\r\nDELE 2\r\n").count(b"-ERR") == 5


def test_rset_takes_every_mark_back() -> None:
    client = logged_in()
    client.say(b"DELE 1\r\nDELE 2\r\nRSET\r\n")
    assert client.say(b"STAT\r\n") == b"+OK 3 88\r\n"
    client.say(b"QUIT\r\n")
    assert len(client.boxes.mails["kasse"]) == 3


def test_dele_takes_effect_at_quit_and_not_before() -> None:
    client = logged_in()
    client.say(b"DELE 1\r\n")
    assert len(client.boxes.mails["kasse"]) == 3
    assert client.say(b"QUIT\r\n") == b"+OK bye\r\n"
    assert [*client.boxes.mails["kasse"]] == [2, 3]
    assert client.closed


def test_a_store_that_cannot_delete_says_so_and_nothing_is_deleted() -> None:
    client = logged_in()
    client.boxes.faults.before("delete")
    assert client.say(b"DELE 1\r\nQUIT\r\n").endswith(b"-ERR [SYS/TEMP]" + _rest(UnavailableError("")))
    assert len(client.boxes.mails["kasse"]) == 3
    assert client.closed


def _rest(error: Error) -> bytes:
    return pop3.error_text(error).partition("]")[2].encode() + b"\r\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("x"), b"-ERR [SYS/TEMP] "),
        (CorruptError("x"), b"-ERR [SYS/PERM] "),
        (ConflictError("x"), b"-ERR [IN-USE] "),
        (RefusedError("x"), b"-ERR [AUTH] "),
        (Error("x"), b"-ERR [SYS/TEMP] "),
    ],
)
def test_the_kind_of_error_decides_the_code_and_its_text_stays_inside(error: Error, code: bytes) -> None:
    client = Client()
    client.boxes.faults.before("open", error)
    reply = client.say(LOGIN)
    assert reply.split(b"\r\n")[1].startswith(code)
    assert client.say(LOGIN).endswith(b"octets)\r\n")


def test_a_message_that_cannot_be_read_now_ends_no_session() -> None:
    client = logged_in()
    client.boxes.faults.before("content")
    assert client.say(b"RETR 1\r\n").startswith(b"-ERR [SYS/TEMP]")
    assert client.say(b"RETR 1\r\n").startswith(b"+OK")


def test_a_second_session_on_the_same_mailbox_is_in_use() -> None:
    client = logged_in()
    assert b"-ERR [IN-USE]" in Client(client.boxes).say(LOGIN)
    client.say(b"QUIT\r\n")
    assert b"+OK 3 messages" in Client(client.boxes).say(LOGIN)


def test_the_user_name_of_a_clientmodul_is_cut_at_the_number_sign() -> None:
    client = Client()
    client.say(b"USER kasse#pop.kim.example:995#M1#C1#W1\r\nPASS geheim\r\n")
    assert client.logins[0].user == "kasse"
    assert "geheim" not in repr(client.logins[0])


def test_a_password_may_hold_blanks_and_umlauts() -> None:
    client = Client()
    client.say("USER kasse\r\nPASS  zwei  Wörter \r\n".encode())
    assert client.logins[0].password == " zwei  Wörter "


def plain(text: str) -> bytes:
    return base64.b64encode(text.encode())


def test_auth_plain_works_with_and_without_an_initial_response() -> None:
    assert b"+OK 3 messages" in Client().say(b"AUTH PLAIN " + plain("\0kasse\0geheim") + b"\r\n")
    client = Client()
    assert client.say(b"auth plain\r\n") == b"+ \r\n"
    assert b"+OK 3 messages" in client.say(plain("kasse\0kasse\0geheim") + b"\r\n")


@pytest.mark.parametrize(
    "line", [b"*", b"", b"!!!!", b"=", plain("kasse"), plain("other\0kasse\0geheim"), plain("\0\0geheim"), b"/w=="]
)
def test_a_broken_plain_response_is_an_error_and_no_log_in(line: bytes) -> None:
    client = Client()
    assert client.say(b"AUTH PLAIN\r\n" + line + b"\r\n").startswith(b"+ \r\n-ERR")
    assert client.logins == []


def test_a_sasl_line_may_be_longer_than_a_command() -> None:
    response = plain("\0kasse" + "#" + "x" * 2000 + "\0geheim")
    assert b"+OK 3 messages" in Client().say(b"AUTH PLAIN " + response + b"\r\n")
    assert b"-ERR" in Client().say(b"AUTH PLAIN " + b"A" * pop3.MAX_SASL_LINE + b"\r\n")


def test_three_wrong_passwords_end_the_connection() -> None:
    client = Client()
    for _ in range(3):
        assert not client.closed
        assert b"-ERR [AUTH]" in client.say(b"USER kasse\r\nPASS falsch\r\n")
    assert client.closed
    assert client.say(LOGIN) == b""


def test_nobody_learns_whether_a_user_exists() -> None:
    assert Client().say(b"USER nobody\r\n") == Client().say(b"USER kasse\r\n")


def test_without_tls_nobody_logs_in() -> None:
    client = Client(tls=False, stls=True)
    assert client.say(LOGIN).count(b"-ERR") == 2
    assert client.say(b"AUTH PLAIN " + plain("\0kasse\0geheim") + b"\r\n").startswith(b"-ERR")
    assert client.logins == []


def test_stls_makes_the_log_in_possible_and_forgets_what_came_before_it() -> None:
    client = Client(tls=False, stls=True)
    assert client.say(b"STLS\r\nUSER evil\r\nPASS geheim\r\n") == b"+OK begin TLS\r\n"
    assert client.say(b"PASS geheim\r\n").startswith(b"-ERR")
    assert b"+OK 3 messages" in client.say(LOGIN)
    assert client.say(b"STLS\r\n").startswith(b"-ERR")


def test_capa_says_what_is_true_at_this_moment() -> None:
    clear = Client(tls=False, stls=True).say(b"CAPA\r\n").split(b"\r\n")
    assert b"STLS" in clear
    assert b"USER" not in clear
    secure = logged_in().say(b"CAPA\r\n").split(b"\r\n")
    assert {b"TOP", b"USER", b"SASL PLAIN", b"UIDL", b"RESP-CODES", b"PIPELINING"} <= {*secure}
    assert b"STLS" not in secure


def test_a_line_too_long_is_one_error_and_the_next_line_is_heard() -> None:
    client = Client()
    assert client.say(b"X" * 100_000) == b"-ERR the line is too long\r\n"
    assert client.say(b"X" * 100_000 + b"\r\nCAPA\r\n").startswith(b"+OK\r\nTOP")
    assert client.say(b"USER " + b"x" * 248 + b"\r\n").startswith(b"+OK")
    assert client.say(b"USER " + b"x" * 249 + b"\r\n").startswith(b"-ERR")


def test_endless_nonsense_ends_the_connection() -> None:
    client = Client()
    reply = client.say(b"EHLO\r\n" * 1000)
    assert reply.count(b"-ERR") == pop3.MAX_BAD_COMMANDS
    assert client.closed


@pytest.mark.parametrize("line", [b"STAT", b"RETR 1", b"DELE 1", b"NOOP", b"LIST", b"RSET", b"\xff\xfe", b"USER a\0b"])
def test_a_command_of_another_state_and_broken_bytes_are_errors(line: bytes) -> None:
    assert Client().say(line + b"\r\n").startswith(b"-ERR")


@pytest.mark.parametrize("number", [b"0", b"4", b"-1", b"1x", b"", b"\xc2\xb2", b"99999999999999999999", b"1 1"])
def test_only_numbers_of_messages_are_numbers(number: bytes) -> None:
    assert logged_in().say(b"RETR " + number + b"\r\n").startswith(b"-ERR")


def test_a_waiting_session_answers_nothing_until_the_outcome_is_there() -> None:
    session = pop3.Session(hostname="h", tls=True)
    session.receive(b"USER a\r\n")
    assert session.receive(b"PASS b\r\nNOOP\r\n") == [pop3.Login("a", "b")]
    assert session.waiting
    assert session.receive(b"NOOP\r\n") == []
    assert session.complete(pop3.Opened([])) == [pop3.Reply(b"+OK 0 messages (0 octets)\r\n+OK\r\n+OK\r\n")]


def test_a_large_mailbox_is_listed_in_pieces() -> None:
    boxes = MemoryMailboxes()
    for _ in range(2_500):
        boxes.put("kasse", b"x\r\n")
    session = pop3.Session(hostname="h", tls=True)
    session.receive(LOGIN)
    session.complete(pop3.Opened(boxes.open("kasse").entries()))
    (action,) = session.receive(b"LIST\r\n")
    assert isinstance(action, pop3.Stream)
    pieces = [*action.pieces]
    assert len(pieces) == 5
    assert max(map(len, pieces)) < 16_000


def test_nothing_counts_between_stls_and_the_end_of_the_handshake() -> None:
    session = pop3.Session(hostname="h", tls=False, stls=True)
    assert session.receive(b"STLS\r\n")[-1] == pop3.StartTLS()
    assert session.receive(b"USER evil\r\n") == []
    assert session.complete(pop3.TLSStarted()) == []
    assert session.receive(b"PASS geheim\r\n") == [pop3.Reply(b"-ERR USER comes first\r\n")]


COMMANDS = st.sampled_from(
    [
        *(LOGIN, b"STAT\r\n", b"LIST\r\n", b"UIDL 1\r\n", b"RETR 1\r\n", b"TOP 2 1\r\n", b"DELE 1\r\n", b"QUIT\r\n"),
        *(b"RSET\r\n", b"NOOP\r\n", b"CAPA\r\n", b"STLS\r\n", b"USER x\n", b"PASS \r\n", b"*\r\n", b"\n"),
        *(b"AUTH PLAIN\r\n", plain("\0kasse\0geheim") + b"\r\n", b"AUTH PLAIN " + b"A" * 400 + b"\r\n"),
        *(b"X" * 300, b"AUTH " + b"x" * 13_000),
    ]
)
STREAMS = st.lists(COMMANDS | st.binary(max_size=8), max_size=25).map(b"".join)


@given(STREAMS)
def test_how_the_bytes_arrive_does_not_matter(stream: bytes) -> None:
    at_once, byte_by_byte = Client(), Client()
    at_once.say(stream)
    for i in range(len(stream)):
        byte_by_byte.say(stream[i : i + 1])
    assert at_once.received == byte_by_byte.received
    assert at_once.closed == byte_by_byte.closed
    assert at_once.boxes.mails == byte_by_byte.boxes.mails


@given(st.binary(max_size=600))
def test_hostile_bytes_never_raise(stream: bytes) -> None:
    Client().say(stream)
    logged_in().say(stream)
    Client().say(b"AUTH PLAIN\r\n" + stream)


@given(STREAMS)
def test_nothing_is_deleted_without_quit(stream: bytes) -> None:
    client = Client()
    client.say(LOGIN + stream.replace(b"QUIT", b"QUIX"))
    assert len(client.boxes.mails["kasse"]) == 3


CONTENT = st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"x" * 50]), max_size=60).map(b"".join)


@given(CONTENT, st.integers(0, 30))
def test_a_client_that_unstuffs_gets_the_mail_back(tail: bytes, shift: int) -> None:
    content = b"h: v\r\n\r\n" + b"y" * (PIECE - 20 + shift) + tail  # the edge of a piece falls into the tail
    wire = b"".join(multi_line(content, len(content)))
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2]
    body = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines[:-2]) + b"\r\n"
    assert body == (content if content.endswith(b"\r\n") else content + b"\r\n")


@given(CONTENT, st.integers(0, 12))
def test_top_ends_where_counting_lines_ends(tail: bytes, lines: int) -> None:
    for body in (tail, b"z" * (PIECE - 30) + tail):
        content = b"h: v\r\n\r\n" + body
        counted = 0
        end = len(b"h: v\r\n\r\n")
        while counted < lines and end < len(content):
            found = content.find(b"\r\n", end)
            end = found + 2 if found >= 0 else len(content)
            counted += 1
        assert end_of_top(content, lines) == end


def test_top_of_a_mail_without_a_body_is_all_of_it() -> None:
    assert end_of_top(b"a: b\r\nc: d\r\n", 0) == 12
    assert end_of_top(b"\r\nbody\r\n", 0) == 2
    assert end_of_top(b"h: v\r\n\r\n" + b"\r\n" * 1_000_000, 999_999_999) == 2_000_008
