from gateway.app import main
from gateway.settings import GatewaySettings
from tidegate_common.runtime.process import run

if __name__ == "__main__":
    run("gateway", GatewaySettings, main)
