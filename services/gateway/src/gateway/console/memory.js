// What the page remembers. Storage may be forbidden to it; then that lives as long as the page does.
import { storage } from "./session.js";

const JOB = "tidegate.job";

/** The answer that was asked for last, as `{jobId, prompt}`, or null. */
export function rememberedJob() {
  try {
    const job = JSON.parse(storage().getItem(JOB));
    return typeof job?.jobId === "string" && typeof job.prompt === "string" ? job : null;
  } catch {
    return null;
  }
}

export function rememberJob(job) {
  try {
    storage().setItem(JOB, JSON.stringify(job));
  } catch {
    // forbidden
  }
}

export function forgetJob() {
  try {
    storage().removeItem(JOB);
  } catch {
    // forbidden
  }
}

/** Calls `listener` with what another tab remembers from now on, null where it forgot. */
export function onOtherTab(listener) {
  addEventListener("storage", ({ key }) => {
    if (key === JOB || key === null) listener(rememberedJob());
  });
}
