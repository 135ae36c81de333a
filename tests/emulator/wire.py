"""Ends of connections that no server means to make."""
import asyncio
import fcntl
import socket
import struct
import termios


def cut(transport):
    """Drop a connection as a vanished machine does: reset, nothing flushed, no close frame."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def cut_when_sent(transport):
    """Reset the connection once everything sent so far has reached the client."""
    sock = transport.get_extra_info("socket")
    for _ in range(200):
        if transport.is_closing() or sock is None or sock.fileno() < 0:
            break
        unsent = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        if not transport.get_write_buffer_size() and not struct.unpack("i", unsent)[0]:
            break
        await asyncio.sleep(0.001)
    cut(transport)
