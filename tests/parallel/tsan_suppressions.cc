// What ThreadSanitizer cannot know: Debian's libabsl_status is not instrumented, so TSan does not
// see the reference count that orders the last use of a Status before its deletion. Linked into
// tests in which a Status crosses threads.
#ifdef __SANITIZE_THREAD__
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "race:absl::*Status::Unref\n"; }
#endif
