"""Result rows straight off the driver's buffer: a read spends most of its time on them.

Takes the place of the loop in `pymysql.connections.MySQLResult`, which makes an object of every
packet and looks up a codec for every value; here a row takes two thirds of the time. Used by `db`
alone; the layout is the text protocol's: https://dev.mysql.com/doc/dev/mysql-server/latest/
page_protocol_com_query_response_text_resultset.html.
The rows are the driver's own: `tests/db/test_row_reader.py`.
"""

from collections.abc import Callable
from typing import Any

from pymysql import MySQLError
from pymysql.connections import MySQLResult
from pymysql.protocol import MysqlPacket

_END, _ERROR = 0xFE, 0xFF
_NULL, _TWO_BYTES, _THREE_BYTES = 0xFB, 0xFC, 0xFD
_LONGEST_PACKET = 0xFFFFFF


class RowReader(MySQLResult):
    """Rows of integers, of text in UTF-8 and of bytes, which is all that our tables have."""

    converters: list[tuple[str | None, Callable[[Any], Any] | None]]

    def _read_load_local_packet(self, first_packet: MysqlPacket) -> None:
        """The server asks for the file of a LOAD DATA LOCAL. It gets what this connection was
        given to feed, whatever file it names. Where that fails the server is told that the file
        ends, so that it can be asked to roll back, and the failure goes up."""
        connection: Any = self.connection
        try:
            for piece in connection.feed:
                connection.write_packet(piece)
        except MySQLError:
            raise  # the connection is lost: nobody can be told anything
        except BaseException:
            self._end_file()
            raise
        self._read_ok_packet(self._end_file())  # type: ignore[attr-defined]

    def _end_file(self) -> MysqlPacket:
        """What the server says of the file as a whole."""
        connection: Any = self.connection
        connection.write_packet(b"")
        packet: MysqlPacket = connection._read_packet()
        return packet

    def _read_rowdata_packet(self) -> None:
        connection: Any = self.connection
        read = connection._read_bytes
        decoders = [_decoder(*converter) for converter in self.converters]
        rows = []
        while True:
            header = read(4)
            size = int.from_bytes(header[:3], "little")
            packet = read(size)
            connection._next_seq_id = (header[3] + 1) % 256
            if packet[0] >= _END and (size < 9 or packet[0] == _ERROR):
                break
            if size == _LONGEST_PACKET:
                raise NotImplementedError("a row of 16 MiB: no declared column is so long")
            rows.append(_row(packet, decoders))
        end = MysqlPacket(packet, connection.encoding)
        if packet[0] == _ERROR:
            end.raise_for_error()
        self._check_packet_is_eof(end)  # type: ignore[attr-defined]
        self.connection = None
        self.affected_rows = len(rows)
        self.rows = tuple(rows)


def _row(packet: bytes, decoders: list[Callable[[bytes], Any]]) -> tuple[Any, ...]:
    """Each value is its length, then its text."""
    row: list[Any] = []
    at = 0
    for decode in decoders:
        length = packet[at]
        at += 1
        if length >= _NULL:
            if length == _NULL:
                row.append(None)
                continue
            width = 2 if length == _TWO_BYTES else 3
            length = int.from_bytes(packet[at : at + width], "little")
            at += width
        end = at + length
        row.append(decode(packet[at:end]))
        at = end
    return tuple(row)


def _decoder(
    encoding: str | None, converter: Callable[[Any], Any] | None
) -> Callable[[bytes], Any]:
    if converter is None:
        return bytes.decode if encoding else bytes
    return int if converter is int else lambda text: converter(text.decode())
