"""Certificates for the tests of TLS."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make(folder):
  """Makes a certificate for localhost, signed by itself.

  Args:
    folder: where the files go.

  Returns:
    `(certificate, key)`, paths of PEM files.
  """
  key = ec.generate_private_key(ec.SECP256R1())
  name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'localhost')])
  now = datetime.datetime.now(datetime.UTC)
  names = [
    x509.DNSName('localhost'),
    x509.IPAddress(ipaddress.ip_address('127.0.0.1')),
  ]
  certificate = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(hours=1))
    .not_valid_after(now + datetime.timedelta(days=1))
    .add_extension(x509.SubjectAlternativeName(names), critical=False)
    .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    .sign(key, hashes.SHA256())
  )
  pem = serialization.Encoding.PEM
  paths = os.path.join(folder, 'server.crt'), os.path.join(folder, 'server.key')
  with open(paths[0], 'wb') as file:
    file.write(certificate.public_bytes(pem))
  with open(paths[1], 'wb') as file:
    file.write(
      key.private_bytes(
        pem,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
      )
    )
  return paths
