import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import org.hibernate.cfg.Configuration;
import org.hibernate.engine.SessionFactoryImplementor;

/** Asks Hibernate about queries: one a line on stdin, "ok" or the reason for a refusal on stdout. */
public final class Oracle {
    /** What an element of a map is to Hibernate. */
    public static final class NamedValue {
        private String name;
        private String value;
    }

    private Oracle() {}

    public static void main(String[] arguments) throws Exception {
        Configuration configuration = new Configuration();
        configuration.setProperty("hibernate.dialect", "org.hibernate.dialect.PostgreSQLDialect");
        configuration.setProperty("hibernate.temp.use_jdbc_metadata_defaults", "false");
        configuration.setProperty("hibernate.default_entity_mode", "dynamic-map");
        configuration.addFile(new File(arguments[0]));
        SessionFactoryImplementor factory =
                (SessionFactoryImplementor) configuration.buildSessionFactory();
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                factory.getQueryPlanCache().getHQLQueryPlan(line, false, Collections.EMPTY_MAP);
                out.println("ok");
            } catch (RuntimeException refusal) {
                out.println(String.valueOf(refusal).replace('\n', ' '));
            }
        }
    }
}
