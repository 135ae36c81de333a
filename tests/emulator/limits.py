"""What an organisation may do: creations in a sliding window, Sprites running at once."""
import collections
import time

import errors


class Limits:
    """No limit unless given. Refused creations use nothing up."""

    def __init__(self, create_limit=None, running_limit=None):
        self.create_limit = create_limit        # (count, seconds)
        self.running_limit = running_limit
        self.creations = collections.deque()

    def admit_creation(self):
        if self.create_limit is None:
            return
        count, window = self.create_limit
        now = time.monotonic()
        while self.creations and self.creations[0] <= now - window:
            self.creations.popleft()
        if len(self.creations) >= count:
            raise errors.creation_limited(count, window, self.creations[0] + window - now)
        self.creations.append(now)

    def admit_running(self, running):
        if self.running_limit is not None and running >= self.running_limit:
            raise errors.running_limited(self.running_limit, running)
