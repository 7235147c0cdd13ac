from publisher_api.app import main
from publisher_api.settings import PublisherSettings
from tidegate_common.runtime.process import run

if __name__ == "__main__":
    run("publisher-api", PublisherSettings, main)
