from ai_worker.app import main
from ai_worker.settings import WorkerSettings
from tidegate_common.runtime.process import run

if __name__ == "__main__":
    run("ai-worker", WorkerSettings, main)
