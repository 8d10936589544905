"""References to secrets. The values exist only between a resolver and one call; nothing here holds one."""

from __future__ import annotations

import dataclasses

SCHEMES = ("env", "file", "k8s", "nomadVar")


@dataclasses.dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a CSI secret (a map of strings) is kept.

    `env:NAME` holds a JSON object; `file:PATH` a JSON or YAML object, or a directory with one file per key;
    `k8s:NAMESPACE/NAME` a Secret; `nomadVar:NAMESPACE/PATH` a variable. An empty reference means no secret.
    """

    scheme: str = ""
    locator: str = ""

    def __bool__(self) -> bool:
        return bool(self.scheme)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.locator}" if self.scheme else ""

    @classmethod
    def parse(cls, text: str) -> SecretRef:
        """Read `scheme:locator`; an empty text is no secret.

        >>> SecretRef.parse("file:/run/secrets/csi").scheme
        'file'
        """
        if not text:
            return cls()
        scheme, colon, locator = text.partition(":")
        if not colon or scheme not in SCHEMES or not locator:
            raise ValueError(f"not a secret reference: want SCHEME:PLACE with one of {', '.join(SCHEMES)}")
        return cls(scheme, locator)


NO_SECRET = SecretRef()


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotSecrets:
    """The secrets that the calls of one snapshot's life want, one reference each."""

    create: SecretRef = NO_SECRET
    delete: SecretRef = NO_SECRET
    inspect: SecretRef = NO_SECRET
