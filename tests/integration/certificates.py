"""Certificates that vouch for themselves."""
import ssl
import subprocess
import types


def certificate(folder, address, name="test"):
    """Its files, and the context of a server that has it."""
    files = types.SimpleNamespace(certificate=folder / f"{address}.pem", key=folder / f"{address}.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=IP:{address}", "-keyout", files.key, "-out", files.certificate], check=True, capture_output=True, timeout=60)
    files.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.tls.load_cert_chain(files.certificate, files.key)
    return files
