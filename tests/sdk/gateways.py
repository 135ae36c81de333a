"""A gateway with a Redis and an emulator of its own."""
import rig


def start(stack, datasette, pool_hot=1):
    """Ready, with a token that may have sessions; `stack` ends all of it."""
    store = rig.Redis()
    stack.callback(store.kill)
    emulator = rig.Emulator()
    stack.callback(emulator.stop)
    gateway = rig.OwnGateway({"datasette_url": datasette, "redis_url": store.url, "sprites_url": emulator.url, "sprites_token": emulator.token,
                              "pepper": "pepper of the tests of other clients", "pool_hot": pool_hot, "pool_wait_seconds": 30,
                              "redis_timeout_ms": rig.PATIENT_REDIS_MS})
    stack.callback(gateway.stop_at_once)
    gateway.sprites = emulator.view
    gateway.token = rig.mint(gateway.settings, sessions=4)["token"]
    gateway.until_ready()
    return gateway
