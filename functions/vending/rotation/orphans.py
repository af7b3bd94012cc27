"""Keys that were made and never stored: found by their name, and deleted without ever taking another's key for one of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from imburse_auth.key_management import KeyManagement, ListedKey
from vending.rotation.diary import Diary
from vending.rotation.lease import RotationFailed
from vending.rotation.notes import Intent, Notes
from vending.rotation.versions import PENDING, Versions

SETTLED_SECONDS = 120  # a key whose making was asked for so long ago is there by now, or never will be


@dataclass(frozen=True)
class Cleaned:
    """What is left.

    The tenant's keys; how many that were asked for may still come up; and the keys asked for that wait as AWSPENDING.
    """

    keys: tuple[ListedKey, ...]
    outstanding: int
    waiting: frozenset[str]
    intent: Intent


@dataclass(frozen=True)
class Orphans:
    """Deletes the orphans of one credential, under its tenant's lease, which `prolong` prolongs.

    `keys_in_use` answers every public key that stands in a version with a stage of any credential, and raises rather than
    leave one out. It calls what it is given before each, since there may be hundreds.
    """

    versions: Versions
    notes: Notes
    diary: Diary
    keys: KeyManagement
    keys_in_use: Callable[[Callable[[], None]], set[str]]
    prolong: Callable[[], None]
    clock: Callable[[], float]

    def clean(self, intent: Intent) -> Cleaned:
        """Delete the keys that were made under the intent, or have its name and came after it, and stand in no secret.

        Raises RotationFailed, and deletes nothing, if there are more of that name than answers were lost: then somebody else
        makes keys of this name, and which are ours cannot be told.
        """
        listed = self.keys.list()
        staged = self.versions.public_keys()
        made = intent.made - intent.before
        suspects = {
            key.public_key
            for key in listed
            if key.public_key not in staged
            and (key.public_key in made or (key.name == intent.name and key.public_key not in intent.before))
        }
        # With the answer to each request known, whatever else has this name is not ours.
        lost = intent.posts - len(made)
        if lost <= 0:
            suspects &= made
        doomed = suspects - self._taken() if suspects else set()
        unknown = doomed - made
        if len(unknown) > lost > 0:
            raise RotationFailed(
                "keys: more keys of this name came up than were asked for, so none is deleted. In the Tenant Portal give"
                f" those that are needed another name, or delete those that are not: {', '.join(sorted(unknown))}"
            )
        for public_key in sorted(doomed):
            self.diary.deletes(intent.credential, public_key, why="orphan")
            self.keys.delete(public_key, before=self.prolong)
        outstanding = 0 if self.clock() - intent.posted_at > SETTLED_SECONDS else max(0, lost - len(unknown))
        waiting = frozenset(key for key in staged.keys() & made if staged[key] == {PENDING})
        # What is in use now was asked for and is no orphan any more, not even when it has been replaced.
        before = frozenset(intent.before | (staged.keys() - waiting))
        settled = replace(intent, before=before, posts=outstanding + len(waiting), made=waiting)
        return Cleaned(tuple(key for key in listed if key.public_key not in doomed), outstanding, waiting, settled)

    def _taken(self) -> set[str]:
        """Keys that are somebody's: in any secret, or replaced and on their way out in their own time."""
        return self.keys_in_use(self.prolong) | {retired.public_key for retired in self.notes.retired()}
