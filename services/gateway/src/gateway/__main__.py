from gateway.settings import GatewaySettings
from gateway.workers import GatewayWorker, supervise
from tidegate_common.runtime.process import run


async def start(settings: GatewaySettings) -> None:
    """This process's part: the gateway itself, or the parent of several, which needs nothing of what they do."""
    if settings.workers > 1 and GatewayWorker.from_environment() is None:
        await supervise(settings)
    else:
        from gateway.app import main

        await main(settings)


if __name__ == "__main__":
    run("gateway", GatewaySettings, start)
